//! The options of a run.

use std::path::PathBuf;

use packshot_pipeline::settings::{GenerateSettings, SplitSettings};

/// What to run, and how.
pub(crate) struct RunOptions {
    pub(crate) catalog: PathBuf,
    /// The directory that is the bucket.
    pub(crate) out: PathBuf,
    /// Calls at once.
    pub(crate) concurrency: u16,
    pub(crate) split: SplitSettings,
    pub(crate) generate: GenerateSettings,
}
