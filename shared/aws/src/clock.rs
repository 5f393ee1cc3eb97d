//! The [`Clock`] port over the operating system: time of day in milliseconds, and random bits.

use jiff::Timestamp;
use packshot_pipeline::ports::Clock;

/// Time of day and randomness of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the Clock port is the only way to the time of day")]
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        // Persisted times have milliseconds: enough for every use, and readable.
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    #[expect(
        clippy::expect_used,
        reason = "without randomness two workers could share a nonce and pay twice: better to stop"
    )]
    fn random(&self) -> u64 {
        getrandom::u64().expect("the operating system gives no random bits")
    }
}

/// A clock for tests: always 2026-03-01 12:00:00 UTC, and no randomness.
#[cfg(test)]
pub(crate) struct FixedClock;

#[cfg(test)]
impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn random(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_values_differ() {
        assert_ne!(SystemClock.random(), SystemClock.random());
    }

    #[test]
    fn the_time_of_day_is_after_1970() {
        assert!(SystemClock.now() > Timestamp::UNIX_EPOCH);
    }
}
