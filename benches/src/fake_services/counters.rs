//! Counts of requests, by the access key that signed them. Reading the counts resets them.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Requests since the last [`take`](Counters::take). Paid calls and connections have no signature: their access key is "".
#[derive(Default)]
pub(super) struct Counters(Mutex<BTreeMap<String, Counts>>);

/// The requests of one access key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) puts: u64,
    pub(crate) gets: u64,
    pub(crate) heads: u64,
    pub(crate) lists: u64,
    /// Requests of multipart uploads.
    pub(crate) multipart: u64,
    /// Requests to queues and to Secrets Manager.
    pub(crate) queue_calls: u64,
    /// Messages sent to queues.
    pub(crate) messages: u64,
    /// Paid calls of the images API.
    pub(crate) calls: u64,
    /// Connections opened, on all three ports.
    pub(crate) connections: u64,
}

impl Counters {
    pub(super) fn add(&self, caller: &str, add: impl FnOnce(&mut Counts)) {
        let mut counted = self.0.lock();
        match counted.get_mut(caller) {
            Some(counts) => add(counts),
            None => add(counted.entry(caller.to_owned()).or_default()),
        }
    }

    pub(super) fn take(&self) -> BTreeMap<String, Counts> {
        std::mem::take(&mut *self.0.lock())
    }
}
