//! One invocation of the generator: how much time is left, and whether a call of the API may start now.

use std::time::Duration;

use jiff::Timestamp;

use super::{breaker::Pass, disposition::GenerateError, worker::Worker};
use crate::{ports::Ports, settings::GenerateSettings};

/// What recording, keeping images and writing a result may take after a call. An invocation must be longer than a call and
/// this.
pub const AFTER_CALL: Duration = Duration::from_secs(30);
/// How much longer than a call a claim lives: what the writes around the call may take.
pub(super) const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// What all messages of one batch share.
#[derive(Clone, Copy)]
pub(super) struct Invocation<'a> {
    pub(super) ports: &'a Ports,
    pub(super) settings: &'a GenerateSettings,
    pub(super) worker: &'a Worker,
    /// The host ends the process then.
    pub(super) deadline: Timestamp,
}

/// Whether a call may start.
pub(super) enum Admission {
    /// It may.
    Call {
        /// The breaker is open, and this call tests it.
        probe: bool,
    },
    /// Not for this long: too little time is left, or the rate or the API's own pause does not allow it.
    Later(Duration),
    /// Not for this long, because the breaker is open.
    BreakerOpen(Duration),
}

impl Invocation<'_> {
    /// Time until the deadline.
    pub(super) fn left(self) -> Duration {
        Duration::try_from(self.deadline.duration_since(self.ports.clock.now())).unwrap_or(Duration::ZERO)
    }

    /// Whether a call that begins after `wait` ends before the deadline.
    pub(super) fn fits(self, wait: Duration) -> bool {
        wait.saturating_add(self.settings.request_timeout).saturating_add(AFTER_CALL) <= self.left()
    }

    /// A random duration up to `limit`.
    pub(super) fn jitter(self, limit: Duration) -> Duration {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.ports.clock.random().checked_rem(nanos.saturating_add(1)).unwrap_or(0))
    }

    /// Waits until a call may start. Does not wait beyond the last moment at which a call could still end in time.
    pub(super) async fn admit(self) -> Result<Admission, GenerateError> {
        loop {
            match self.admit_now().await? {
                Admission::Later(wait) if self.fits(wait) => tokio::time::sleep(wait).await,
                admission => return Ok(admission),
            }
        }
    }

    /// Asks, in this order, the time that is left, the rate limit with the API's pauses, and the breaker: only the last costs
    /// a request, and only a call that really starts may be the breaker's probe.
    pub(super) async fn admit_now(self) -> Result<Admission, GenerateError> {
        if !self.fits(Duration::ZERO) {
            return Ok(Admission::Later(Duration::from_secs(1)));
        }
        if let Err(wait) = self.worker.rate_limit.take() {
            return Ok(Admission::Later(wait));
        }
        let call_takes = self.settings.request_timeout + LEASE_MARGIN;
        Ok(match self.worker.breaker.pass(self.ports, call_takes).await? {
            Pass::Go => Admission::Call { probe: false },
            Pass::Probe => Admission::Call { probe: true },
            Pass::Hold(wait) => Admission::BreakerOpen(wait),
        })
    }
}
