//! `packshot review`: opens the contact sheet of a run in the browser.

use std::{io, path::PathBuf};

use clap::Args;

use crate::{
    contact_sheet,
    exit_status::{CommandResult, ExitStatus},
    output,
};

/// Arguments of `packshot review`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot review                       the newest run in out/
  packshot review shoes-out             the newest run in another directory
  packshot review 7b8bea91220e78be      one job in out/
  packshot review --no-open             print the path of the page only

Keys in the page: j and k go to the next and previous SKU, the arrows to the next and previous image. Enter shows an image \
large, next to its source photo; / finds a word; Esc resets.")]
pub(crate) struct ReviewArgs {
    /// A directory that was given to `run --out`, the directory of a job, or the id of a job.
    #[arg(value_name = "DIR|JOB", default_value = "out")]
    what: String,
    /// Directory that has the job.
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// Print the path of the page and open nothing.
    #[arg(long)]
    no_open: bool,
}

/// No browser, or none that can be started from here.
#[derive(Debug, thiserror::Error)]
#[error("no browser could be started ({0}); open the page above yourself, or use --no-open")]
struct NoBrowser(io::Error);

/// Prints the path of the page, and opens it.
pub(crate) fn run(args: &ReviewArgs) -> CommandResult {
    let page = contact_sheet::find(&args.what, &args.out)?;
    output::print(page.display())?;
    if !args.no_open {
        open::that_detached(&page).map_err(NoBrowser)?;
    }
    Ok(ExitStatus::Done)
}
