//! The state that a generator process keeps between batches.
//!
//! It is created once per process. Nothing depends on it being kept: a new process starts without it and only loses time.

use std::sync::atomic::AtomicBool;

use tokio::sync::Semaphore;

use super::{archive, breaker::Breaker, guardrail::Guardrail, rate_limit::CallRateLimiter};
use crate::{ports::Clock, settings::GenerateSettings};

/// The state of one generator process.
pub struct Worker {
    /// Random id, which marks the claims of this process.
    pub id: String,
    /// Decides when the next call may start.
    pub rate_limit: CallRateLimiter,
    /// Suspends calls while the account cannot be used.
    pub breaker: Breaker,
    /// Stops jobs that mostly fail.
    pub guardrail: Guardrail,
    /// Whether the ledger had no entry for the last row. Only a hint: it decides what the next row tries first.
    pub new_rows: AtomicBool,
    /// Slots for images that are fetched into memory.
    pub image_slots: Semaphore,
}

impl Worker {
    /// Creates the state of a new process.
    #[must_use]
    pub fn new(clock: &dyn Clock, settings: &GenerateSettings) -> Self {
        Self {
            id: format!("{:016x}", clock.random()),
            rate_limit: CallRateLimiter::new(settings.requests_per_minute),
            breaker: Breaker::default(),
            guardrail: Guardrail::new(settings.max_failed_percent),
            new_rows: AtomicBool::new(true),
            image_slots: Semaphore::new(archive::AT_ONCE),
        }
    }
}
