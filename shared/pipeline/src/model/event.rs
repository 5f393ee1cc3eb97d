//! The events that metrics are computed from.
//!
//! A use case records an event when it happens, through [`crate::ports::MetricsRecorder`]. Each host counts them in its own
//! way: CloudWatch metrics on AWS, nothing in a local run.

use std::time::Duration;

use crate::model::error_class::ErrorClass;

/// Something that happened, recorded once by the process that did it. A process that dies loses its unsent events, so code
/// must not decide anything by them: they are for people who monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricEvent {
    /// The splitter has finished rows: messages are sent for some, failed results are written for the others.
    RowsSplit {
        /// Rows sent to the generator.
        sent: u64,
        /// Rows rejected by validation.
        rejected: u64,
    },
    /// A file could not be a catalog.
    CatalogRejected,
    /// A call of the images API ended, with success or not.
    Called {
        /// Duration of the call.
        took: Duration,
        /// Whether an earlier call was made for the same fingerprint.
        retry: bool,
        /// Images in the answer.
        images: usize,
    },
    /// The API refused a call because of its rate limit.
    Throttled,
    /// A call's outcome is unknown and stays so; it may have been billed.
    OutcomeUnknown,
    /// A row was sent back to the queue, because calls are suspended for the account.
    RowSuspended,
    /// A completed result was written, or existed already.
    RowCompleted {
        /// Another row paid for the outcome.
        reused: bool,
        /// Some of its images could not be kept.
        archive_error: bool,
    },
    /// A failed result was written, or a completed or later one existed already.
    RowFailed(ErrorClass),
    /// A part was written.
    PartMerged,
    /// A manifest was written.
    ManifestWritten {
        /// Time since the job's last row ended.
        lag: Duration,
        /// Whether it is the job's first manifest, which means that the job has finished.
        first: bool,
    },
    /// A sweep has looked at every job.
    Swept {
        /// Age of the oldest unfinished job; zero if all have finished.
        oldest: Duration,
    },
}
