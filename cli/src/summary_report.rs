//! What `run` and `submit --wait` print about a job that has ended.

use std::path::Path;

use packshot_pipeline::model::summary::Summary;

use crate::{
    exit_status::{CommandResult, ExitStatus},
    output::{self, first_line},
};

/// Tells the user which errors were most frequent.
pub(crate) fn say_top_errors(summary: &Summary) {
    for error in &summary.top_errors {
        output::say(format_args!("{} × {}: {}", error.count, error.error_code, first_line(&error.example)));
    }
}

/// Prints the last line, which scripts read. `manifest` is where the manifest was written.
pub(crate) fn print_done(summary: &Summary, manifest: &Path) -> CommandResult {
    let counts = &summary.counts;
    let (completed, failed) = (counts.completed, counts.failed);
    output::print(format_args!("Done. completed={completed}, failed={failed}, output={}", manifest.display()))?;
    Ok(if failed == 0 { ExitStatus::Done } else { ExitStatus::SomeFailed })
}
