//! Limits the calls of one process: to the configured rate, and by pauses after a 429.
//!
//! Starts are spaced evenly over the minute. After a 429 no call starts until the API's `Retry-After` has passed, or, without
//! one, until an exponential backoff has.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock as GovernorClock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Decides when the next call of this process may start.
pub struct CallRateLimiter {
    limiter: Option<RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>>,
    clock: TokioClock,
    pause: Mutex<Pause>,
}

#[derive(Default)]
struct Pause {
    until: Option<Instant>,
    /// Number of 429s in a row. Determines the backoff if the API sends no `Retry-After`.
    streak: u32,
}

/// The first pause if the API sends no `Retry-After`; doubles with every 429 in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

impl CallRateLimiter {
    /// Allows at most this many starts per minute; no limit when absent.
    #[must_use]
    pub fn new(per_minute: Option<NonZeroU32>) -> Self {
        let clock = TokioClock(Instant::now());
        // A burst of one, because the API's limiter would refuse a minute's budget in one second.
        let limiter = per_minute
            .map(|n| RateLimiter::direct_with_clock(Quota::per_minute(n).allow_burst(NonZeroU32::MIN), clock));
        Self { limiter, clock, pause: Mutex::default() }
    }

    /// Admits one call, or returns how long to wait before asking again.
    pub fn take(&self) -> Result<(), Duration> {
        if let Some(until) = self.pause.lock().until {
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

    /// Suspends calls after a 429. Returns for how long.
    pub fn pause(&self, retry_after: Option<Duration>, ceiling: Duration) -> Duration {
        let mut pause = self.pause.lock();
        let backoff = FIRST_PAUSE.saturating_mul(1 << pause.streak.min(10));
        pause.streak += 1;
        let length = retry_after.filter(|d| !d.is_zero()).unwrap_or(backoff).min(ceiling);
        let until = Instant::now() + length;
        pause.until = Some(pause.until.map_or(until, |before| before.max(until)));
        length
    }

    /// Ends the streak of 429s, because the API has answered with something else.
    pub fn reset_backoff(&self) {
        self.pause.lock().streak = 0;
    }
}

/// Tokio's clock for governor, so that tests and the simulation can control it.
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
    async fn a_429_suspends_all_calls_and_backs_off() {
        let (limiter, ceiling) = (CallRateLimiter::new(None), Duration::from_secs(60));
        assert_eq!(limiter.pause(Some(Duration::from_secs(7)), ceiling), Duration::from_secs(7));
        assert_eq!(limiter.take(), Err(Duration::from_secs(7)));
        // A later, shorter pause does not shorten the current one.
        assert_eq!(limiter.pause(None, ceiling), Duration::from_secs(2));
        assert_eq!(limiter.take(), Err(Duration::from_secs(7)));
        assert_eq!(limiter.pause(Some(Duration::from_secs(1_000_000_000)), ceiling), ceiling);
        tokio::time::advance(ceiling).await;
        assert_eq!(limiter.take(), Ok(()));
        limiter.reset_backoff();
        assert_eq!(limiter.pause(None, ceiling), FIRST_PAUSE);
    }
}
