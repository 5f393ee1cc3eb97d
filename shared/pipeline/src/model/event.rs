//! What the use cases know about their own work while they do it: the facts that metrics are made of.

use std::time::Duration;

use crate::model::error_class::ErrorClass;

/// Something that happened, told once, by the process that did it. A process that dies takes the facts of its last moments
/// with it, so nothing may be decided by them: they are for people who watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The splitter is through with rows: so many are on their way, so many have their failed result.
    RowsSplit {
        /// Sent to the generator.
        sent: u64,
        /// Rejected.
        rejected: u64,
    },
    /// A file could not be a catalog.
    CatalogRejected,
    /// A call of the images API ended, in whatever way.
    Called {
        /// How long it took.
        took: Duration,
        /// It was not the first for its row.
        retry: bool,
        /// Pictures that came.
        pictures: usize,
    },
    /// The API said that it is asked too often.
    Throttled,
    /// A call's outcome will not become known; it may have been billed.
    OutcomeUnknown,
    /// A row was not called for, because the account cannot pay.
    Held,
    /// A completed result stands.
    RowCompleted {
        /// Another row has paid for it.
        reused: bool,
        /// Some of its pictures could not be kept.
        archive_error: bool,
    },
    /// A failed result stands.
    RowFailed(ErrorClass),
    /// A part was written.
    PartMerged,
    /// A manifest was written.
    ManifestWritten {
        /// How long after the job's last row ended.
        lag: Duration,
        /// It was the job's first: the job has finished.
        first: bool,
    },
    /// The sweep has looked at every job.
    Swept {
        /// Age of the oldest job that has not finished; nothing where all have.
        oldest: Duration,
    },
}
