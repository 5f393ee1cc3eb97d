//! Why the splitter could not finish. Everything may be done again from the start.

use crate::{
    catalog::reader::ReadError,
    notify::AnnounceError,
    ports::{QueueError, StoreError},
};

/// Why a file could not be split to its end.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The deadline is too close. Call again: the splitter continues at the checkpoint.
    #[error("out of time; goes on at row {next_row}")]
    OutOfTime {
        /// The first row that has not been sent.
        next_row: u64,
    },
    /// A call of the store failed. Call again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Messages could not be sent. Call again.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The file is rejected and its summary is stored, but subscribers have not been notified. Call again.
    #[error(transparent)]
    Announce(#[from] AnnounceError),
    /// Pass 2 read something else than pass 1: the store broke its promise. Stop.
    #[error("the object changed while it was read: {0}")]
    Changed(String),
}

/// In pass 2. Pass 1 has read the same object to its end, so a file that is no catalog now has changed.
impl From<ReadError> for SplitError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => Self::Store(error),
            ReadError::Catalog(problem) => Self::Changed(problem.to_string()),
        }
    }
}
