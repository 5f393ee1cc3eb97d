//! What a process remembers between messages. Made once; losing it loses nothing but time.

use std::sync::atomic::AtomicBool;

use tokio::sync::Semaphore;

use crate::{
    generate::{archive, breaker::Breaker, guardrail::Guardrail, rate_limit::CallRateLimiter},
    ports::Clock,
    settings::GenerateSettings,
};

/// The state of one generator process.
pub struct Worker {
    /// Tells this process's claims from others'.
    pub id: String,
    /// When the next call may start.
    pub rate_limit: CallRateLimiter,
    /// Whether the account is well.
    pub breaker: Breaker,
    /// Which jobs have been stopped.
    pub guardrail: Guardrail,
    /// Whether the last row that was looked up was new to the ledger. A hint: it decides what is tried first, nothing else.
    pub new_rows: AtomicBool,
    /// Places for pictures that are held in memory while they are kept.
    pub pictures: Semaphore,
}

impl Worker {
    /// Begins a process.
    #[must_use]
    pub fn new(clock: &dyn Clock, settings: &GenerateSettings) -> Self {
        Self {
            id: format!("{:016x}", clock.random()),
            rate_limit: CallRateLimiter::new(settings.requests_per_minute),
            breaker: Breaker::default(),
            guardrail: Guardrail::new(settings.max_failed_percent),
            new_rows: AtomicBool::new(true),
            pictures: Semaphore::new(archive::AT_ONCE),
        }
    }
}
