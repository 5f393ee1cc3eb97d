//! Turns a catalog into messages: pass 1 validates everything before anything is spent, pass 2 sends.
//!
//! [`admit`] streams the whole file and ends with `job.json`, or with the summary of a rejected file. [`send`](send()) streams the
//! file once more, sends one message per valid row and writes one failed result per rejected row. Either pass may run twice,
//! or in two processes at once: `job.json` is created once, and consumers of the messages are idempotent.

mod admit;
mod error;
mod input;
pub(crate) mod send;

use jiff::Timestamp;

pub use self::{
    admit::{SplitReport, admit, validate},
    error::SplitError,
    input::SplitInput,
    send::send,
};
use crate::{ports::Ports, settings::SplitSettings};

/// Splits a catalog: [`admit`], then [`send`](send()). A second run may send messages twice, and does nothing worse.
pub async fn split(
    ports: &Ports,
    settings: &SplitSettings,
    source: SplitInput,
    deadline: Timestamp,
) -> Result<SplitReport, SplitError> {
    let report = admit(ports, settings, &source).await?;
    if let SplitReport::Split(job) = &report {
        send(ports, job, &source, deadline).await?;
    }
    Ok(report)
}
