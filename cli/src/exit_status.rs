//! The exit status of the command.

use std::process::ExitCode;

/// The exit status of the command. Scripts read the numbers; `docs/errors.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// The command did its work. Of a run: every row is completed.
    Done = 0,
    /// The file cannot be a catalog, or the command could not do its work.
    CouldNotRun = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The command did its work, and some rows failed or would be rejected.
    SomeFailed = 3,
    /// The API account cannot pay, or the key is wrong; finished rows are kept.
    Account = 4,
    /// The user stopped the run; the same command continues it.
    Interrupted = 130,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// How a command ends: with a status, or with an error that is printed and gives [`ExitStatus::CouldNotRun`].
pub(crate) type CommandResult = Result<ExitStatus, Box<dyn std::error::Error>>;
