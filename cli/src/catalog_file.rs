//! The user's CSV on this machine.

use std::{io, path::Path};

use packshot_pipeline::model::keys;

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub(crate) struct FileError {
    path: String,
    error: io::Error,
}

impl FileError {
    pub(crate) fn new(path: &Path, error: io::Error) -> Self {
        Self { path: path.display().to_string(), error }
    }
}

/// The key under which a file of this name is uploaded.
pub(crate) fn key(path: &Path) -> String {
    format!("{}{}", keys::INCOMING, path.file_name().unwrap_or_default().to_string_lossy())
}
