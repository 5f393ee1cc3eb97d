//! The lock on the directory of a run.
//!
//! It proves that no other process works on the directory, so a claim in its ledger that this process did not make is a dead
//! one's. The operating system releases it when the process ends, however it ends.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use packshot_aws::clock::SystemClock;
use packshot_pipeline::ports::Clock as _;

use crate::catalog_file::FileError;

const LOCK: &str = ".packshot.lock";

/// Why the directory is not locked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{dir} is in use by another run ({holder}); wait until it ends, or choose another --out")]
    InUse { dir: String, holder: String },
}

/// Locks the directory until the file is dropped.
pub(super) fn lock(dir: &Path) -> Result<File, LockError> {
    let path = dir.join(LOCK);
    let file_error = |error| FileError::new(&path, error);
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(file_error)?;
    if file.try_lock().is_err() {
        let mut holder = String::new();
        // If the file is unreadable, the message does not name the holder.
        let _ = file.read_to_string(&mut holder);
        return Err(LockError::InUse { dir: dir.display().to_string(), holder: holder.trim().to_owned() });
    }
    let holder = format!("process {}, since {}\n", std::process::id(), SystemClock.now());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(holder.as_bytes()))
        .map_err(file_error)?;
    Ok(file)
}
