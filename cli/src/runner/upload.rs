//! The upload of a catalog into the directory: a copy under `incoming/`, and what identifies its job.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    path::Path,
};

use futures::TryStreamExt as _;
use packshot_pipeline::{
    model::{
        json,
        keys::{self, Catalog},
    },
    ports::{Ports, Precondition, StoreError},
    settings::SplitSettings,
    split::SplitInput,
    storage,
};
use sha2::{Digest as _, Sha256};

use super::error::RunError;
use crate::catalog_file::{self, FileError};

const BUCKET: &str = "local";
/// Bytes read from the file at once.
const CHUNK: usize = 64 * 1024;

/// Copies the file under `incoming/`, unless the same bytes are already there.
pub(super) async fn upload(
    ports: &Ports,
    path: &Path,
    mut file: File,
    settings: &SplitSettings,
) -> Result<SplitInput, RunError> {
    let key = key(path);
    let version = version(&mut file).map_err(|error| FileError::new(path, error))?;
    let marker = format!("control/uploads/{}.txt", key.trim_start_matches(keys::INCOMING));
    let known = storage::read(ports, &marker).await?;
    if known.is_none_or(|known| known.value != version.as_bytes()) || ports.store.head(&key).await?.is_none() {
        let body = tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK)
            .map_err(|error| StoreError::Refused { detail: error.to_string() });
        ports.store.put_stream(&key, Box::pin(body), Precondition::None).await?;
        storage::write(ports, &marker, version.clone().into(), Precondition::None).await?;
    }
    Ok(SplitInput {
        bucket: BUCKET.into(),
        key,
        version_id: Some(version),
        etag: None,
        edition: edition(settings),
        // Sends every row without a completed result again, because the queue does not outlive the process.
        round: u64::try_from(ports.clock.now().as_millisecond()).unwrap_or_default(),
    })
}

/// A hash of the content, in place of the version that S3 gives an object.
fn version(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    file.rewind()?;
    Ok(hex::encode(&hash.finalize()[..16]))
}

/// The key of the copy. A file whose name is not one of a catalog is treated as a CSV; its content decides.
fn key(path: &Path) -> String {
    let key = catalog_file::key(path);
    if Catalog::of(&key).is_some() {
        return key;
    }
    let stem = path.file_stem().map_or_else(|| "catalog".into(), |stem| stem.to_string_lossy());
    format!("{}{stem}.csv", keys::INCOMING)
}

/// The settings that make another job of the same file: on one machine people choose them per run.
fn edition(settings: &SplitSettings) -> String {
    let mut edition = json::to_string(&settings.defaults);
    if !settings.column_map.is_empty() {
        edition.push_str(&json::to_string(&settings.column_map));
    }
    edition
}
