//! Why a run could not do its work.

use packshot_pipeline::{model::catalog_error::CatalogError, ports::StoreError, split::SplitError};

use super::{api::ApiError, lock::LockError};
use crate::catalog_file::FileError;

/// Why a run could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The file cannot be a catalog.
    #[error("{path} is rejected: {problem}\nNo call was made. See {summary}")]
    Rejected { path: String, problem: Box<CatalogError>, summary: String },
    #[error("{0}; finished rows are kept, run the same command again")]
    Split(#[from] SplitError),
    #[error("{0}; finished rows are kept, run the same command again")]
    Store(#[from] StoreError),
    /// Some rows have no result and are not in the queue.
    #[error(
        "{0} rows could not be handled; finished rows are kept, run the same command again with --verbose to see why"
    )]
    Stuck(u64),
}
