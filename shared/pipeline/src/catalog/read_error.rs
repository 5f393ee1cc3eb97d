//! The error of reading a catalog: the file's fault or the store's.

use crate::{model::catalog_error::CatalogError, ports::StoreError};

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be a catalog. Reading it again gives the same error.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The store failed. The read may be repeated from the start.
    #[error(transparent)]
    Store(#[from] StoreError),
}
