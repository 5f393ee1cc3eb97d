//! What happened in a run, in numbers.

use std::{collections::BTreeMap, time::Duration};

/// What happened in one run or in many, in numbers.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Port calls of the product.
    pub port_calls: u64,
    /// The same by role, call and prefix of the key.
    pub calls: BTreeMap<(&'static str, &'static str, &'static str), u64>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Uploaded files.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Calls that reached the API.
    pub api_calls: u64,
    /// Calls that were billed.
    pub billed: u64,
    /// Unknown outcomes that the ledger counted.
    pub unknown: u64,
    /// Messages that a person redrove.
    pub redriven: u64,
    /// Simulated time.
    pub virtual_time: Duration,
}

impl Stats {
    /// Adds the numbers of another run.
    pub fn add(&mut self, other: &Self) {
        self.port_calls += other.port_calls;
        for (kind, count) in &other.calls {
            *self.calls.entry(*kind).or_default() += count;
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.files += other.files;
        self.rows += other.rows;
        self.api_calls += other.api_calls;
        self.billed += other.billed;
        self.unknown += other.unknown;
        self.redriven += other.redriven;
        self.virtual_time += other.virtual_time;
    }
}
