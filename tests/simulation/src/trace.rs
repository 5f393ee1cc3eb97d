//! What happened at the ports, in order: hashed always, kept as text when asked.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use super::wire::Call;

/// Every port call of a run.
#[derive(Default)]
pub(super) struct Trace {
    hasher: DefaultHasher,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(keep: bool) -> Self {
        Self { hasher: DefaultHasher::new(), lines: keep.then(Vec::new) }
    }

    pub(super) fn add(&mut self, at: Duration, actor: &str, call: Call, key: &str, outcome: &str) {
        (at, actor, call, key, outcome).hash(&mut self.hasher);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.3} {actor:<12} {call:?} {key} {outcome}", at.as_secs_f64()));
        }
    }

    pub(super) fn say(&mut self, at: Duration, what: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.3} {what}", at.as_secs_f64()));
        }
    }

    pub(super) fn finish(self) -> (u64, Vec<String>) {
        (self.hasher.finish(), self.lines.unwrap_or_default())
    }
}
