//! Attempts at merging: read, make, write under preconditions, and begin again if something changed in between.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};

use crate::ports::StoreError;

/// Attempts of one merge. Each lost attempt means that newer data arrived in between.
const ATTEMPTS: usize = 12;
/// The wait after the first lost attempt; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const MAX_WAIT: Duration = Duration::from_millis(3_200);

/// The end of an attempt that nothing interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MergeAttempt {
    /// Everything is written.
    Done,
    /// Rows are missing, so the rest has to wait for them.
    Incomplete,
}

/// Why an attempt ended early.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// Something changed meanwhile, or an answer was lost: begin again.
    Retry,
    /// The merge cannot go on.
    Store(StoreError),
}

impl From<StoreError> for AttemptError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Ends the attempt after a write that failed: an error that a new read may resolve starts the attempt again. Reads are not
/// treated so, because the store's calls repeat them.
pub(super) fn retry_on_conflict(error: StoreError) -> AttemptError {
    match error {
        StoreError::Conflict { .. } | StoreError::Unknown { .. } | StoreError::Unavailable { .. } => {
            AttemptError::Retry
        }
        refused @ StoreError::Refused { .. } => AttemptError::Store(refused),
    }
}

/// Attempts until one reaches its end; `true` if everything is written.
pub(super) async fn attempts<F>(attempt: impl Fn() -> F) -> Result<bool, StoreError>
where
    F: Future<Output = Result<MergeAttempt, AttemptError>>,
{
    let waits =
        ExponentialBuilder::default().with_min_delay(FIRST_WAIT).with_max_delay(MAX_WAIT).with_max_times(ATTEMPTS - 1);
    match attempt.retry(waits).when(|error| matches!(error, AttemptError::Retry)).await {
        Ok(end) => Ok(end == MergeAttempt::Done),
        Err(AttemptError::Retry) => Err(StoreError::Unavailable { detail: "too many changes at once".into() }),
        Err(AttemptError::Store(error)) => Err(error),
    }
}

/// The error for an object that was listed and does not exist any more: a new listing may resolve it.
pub(super) fn missing_object(key: &str) -> StoreError {
    StoreError::Unavailable { detail: format!("{key} was listed and cannot be read") }
}
