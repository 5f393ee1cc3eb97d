//! When the next call may start: the configured rate, and the pauses that the API asks for. Per process.

use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock as GovernorClock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

/// Starts of calls, evenly spaced, and the pause after a 429.
pub struct CallRateLimiter {
    limiter: Option<RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>>,
    clock: TokioClock,
    pause: Mutex<Pause>,
}

#[derive(Default)]
struct Pause {
    until: Option<Instant>,
    /// 429s in a row: the backoff where the API gives no time.
    streak: u32,
}

/// The first pause where the API gives no time; doubles with every 429 in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

impl CallRateLimiter {
    /// At most this many starts per minute; no limit when absent.
    #[must_use]
    pub fn new(per_minute: Option<NonZeroU32>) -> Self {
        let clock = TokioClock(Instant::now());
        // A burst of one: a minute's budget spent in its first second is what the API's limiter would refuse.
        let limiter = per_minute
            .map(|n| RateLimiter::direct_with_clock(Quota::per_minute(n).allow_burst(NonZeroU32::MIN), clock));
        Self { limiter, clock, pause: Mutex::default() }
    }

    /// Takes a place for one call, or says how long there is none.
    pub fn take(&self) -> Result<(), Duration> {
        if let Some(until) = self.lock().until {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Err(left);
            }
        }
        match &self.limiter {
            None => Ok(()),
            Some(limiter) => limiter.check().map_err(|not_until| not_until.wait_time_from(self.clock.now())),
        }
    }

    /// The API asked to slow down: nobody calls until then. Returns the pause.
    pub fn throttled(&self, retry_after: Option<Duration>, ceiling: Duration) -> Duration {
        let mut pause = self.lock();
        let backoff = FIRST_PAUSE.saturating_mul(1 << pause.streak.min(10));
        pause.streak += 1;
        let length = retry_after.filter(|d| !d.is_zero()).unwrap_or(backoff).min(ceiling);
        let until = Instant::now() + length;
        pause.until = Some(pause.until.map_or(until, |before| before.max(until)));
        length
    }

    /// The API answered without asking to slow down.
    pub fn flowing(&self) {
        self.lock().streak = 0;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokio's clock for governor, so that a simulation can pause it.
#[derive(Clone, Copy, Debug)]
struct TokioClock(Instant);

impl GovernorClock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn starts(limiter: &CallRateLimiter, calls: u32) -> Duration {
        let began = Instant::now();
        for _ in 0..calls {
            while let Err(wait) = limiter.take() {
                tokio::time::sleep(wait).await;
            }
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn starts_are_spread_over_the_minute() {
        let limiter = CallRateLimiter::new(NonZeroU32::new(60));
        let took = starts(&limiter, 61).await;
        assert!((59..=61).contains(&took.as_secs()), "{took:?}");
        assert_eq!(starts(&CallRateLimiter::new(None), 1_000).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_pauses_everyone_and_backs_off() {
        let (limiter, ceiling) = (CallRateLimiter::new(None), Duration::from_secs(60));
        assert_eq!(limiter.throttled(Some(Duration::from_secs(7)), ceiling), Duration::from_secs(7));
        assert_eq!(limiter.take(), Err(Duration::from_secs(7)));
        // A later, shorter pause does not cut the longer one short.
        assert_eq!(limiter.throttled(None, ceiling), Duration::from_secs(2));
        assert_eq!(limiter.take(), Err(Duration::from_secs(7)));
        assert_eq!(limiter.throttled(Some(Duration::from_secs(1_000_000_000)), ceiling), ceiling);
        tokio::time::advance(ceiling).await;
        assert_eq!(limiter.take(), Ok(()));
        limiter.flowing();
        assert_eq!(limiter.throttled(None, ceiling), FIRST_PAUSE);
    }
}
