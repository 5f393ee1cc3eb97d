//! One invocation of the generator: the time left until its deadline, and the admission of calls.
//!
//! A call is admitted if it can end before the deadline, if the rate limit allows it, and if the breaker does.

use std::time::Duration;

use jiff::Timestamp;

use super::{breaker::BreakerDecision, disposition::GenerateError, worker::Worker};
use crate::{ports::Ports, settings::GenerateSettings};

/// Time for recording, keeping images and writing a result after a call. An invocation must be longer than a call plus this.
pub const AFTER_CALL: Duration = Duration::from_secs(30);
/// How much longer than a call its lease is: time for the writes before and after the call.
pub(super) const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// The context that all messages of one batch share.
#[derive(Clone, Copy)]
pub(super) struct Invocation<'a> {
    pub(super) ports: &'a Ports,
    pub(super) settings: &'a GenerateSettings,
    pub(super) worker: &'a Worker,
    /// When the host ends the process.
    pub(super) deadline: Timestamp,
}

/// Whether a call may start now.
pub(super) enum Admission {
    /// The call may start.
    Call {
        /// Whether the breaker is open and this call probes the account.
        probe: bool,
    },
    /// Not for this long: too little time is left, or the rate limit or a pause after a 429 does not allow it.
    Later(Duration),
    /// Not for this long, because the breaker is open.
    BreakerOpen(Duration),
}

impl Invocation<'_> {
    /// The time until the deadline.
    pub(super) fn left(self) -> Duration {
        Duration::try_from(self.deadline.duration_since(self.ports.clock.now())).unwrap_or(Duration::ZERO)
    }

    /// Whether a call that starts after `wait` ends before the deadline.
    pub(super) fn fits(self, wait: Duration) -> bool {
        wait.saturating_add(self.settings.request_timeout).saturating_add(AFTER_CALL) <= self.left()
    }

    /// A random duration up to `limit`.
    pub(super) fn jitter(self, limit: Duration) -> Duration {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.ports.clock.random().checked_rem(nanos.saturating_add(1)).unwrap_or(0))
    }

    /// Identifies one write, so that its worker recognises it.
    pub(super) fn nonce(self) -> String {
        format!("{:016x}", self.ports.clock.random())
    }

    /// Waits until a call may start, but not so long that the call could no longer end in time.
    pub(super) async fn admit(self) -> Result<Admission, GenerateError> {
        loop {
            match self.admit_now().await? {
                Admission::Later(wait) if self.fits(wait) => tokio::time::sleep(wait).await,
                admission => return Ok(admission),
            }
        }
    }

    /// Decides whether a call may start now. The order is the time left, the rate limit, the breaker: only the breaker costs a
    /// request, and only a call that really starts may be its probe.
    pub(super) async fn admit_now(self) -> Result<Admission, GenerateError> {
        if !self.fits(Duration::ZERO) {
            return Ok(Admission::Later(Duration::from_secs(1)));
        }
        if let Err(wait) = self.worker.rate_limit.take() {
            return Ok(Admission::Later(wait));
        }
        let call_takes = self.settings.request_timeout + LEASE_MARGIN;
        Ok(match self.worker.breaker.decide(self.ports, call_takes).await? {
            BreakerDecision::Call => Admission::Call { probe: false },
            BreakerDecision::Probe => Admission::Call { probe: true },
            BreakerDecision::Suspend(wait) => Admission::BreakerOpen(wait),
        })
    }
}
