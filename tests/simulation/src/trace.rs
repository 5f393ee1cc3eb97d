//! What happened at the ports, in order: always hashed, kept as text on request.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use crate::call::Call;

/// Every port call of a run.
#[derive(Default)]
pub(crate) struct Trace {
    hasher: DefaultHasher,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(keep: bool) -> Self {
        Self { hasher: DefaultHasher::new(), lines: keep.then(Vec::new) }
    }

    /// Adds a port call and what its caller learned.
    pub(crate) fn call(&mut self, at: Duration, actor: &str, call: Call, key: &str, outcome: &str) {
        (at, actor, call, key, outcome).hash(&mut self.hasher);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.3} {actor:<12} {call:?} {key} {outcome}", at.as_secs_f64()));
        }
    }

    /// Adds a line for the reader, which is not part of the hash.
    pub(crate) fn text(&mut self, at: Duration, what: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.3} {what}", at.as_secs_f64()));
        }
    }

    /// The hash of all calls, and the text if it was kept.
    pub(crate) fn finish(self) -> (u64, Vec<String>) {
        (self.hasher.finish(), self.lines.unwrap_or_default())
    }
}
