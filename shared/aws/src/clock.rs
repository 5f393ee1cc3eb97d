//! The real clock and real chance.

use jiff::Timestamp;
use packshot_pipeline::ports::Clock;

/// Time of day and randomness of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the gate")]
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        // Milliseconds are enough for anything we record, and readable.
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    #[expect(
        clippy::expect_used,
        reason = "without chance two workers could share a nonce and pay twice: better to stop"
    )]
    fn random(&self) -> u64 {
        getrandom::u64().expect("the operating system gives no random bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_does_not_repeat() {
        assert_ne!(SystemClock.random(), SystemClock.random());
    }

    #[test]
    fn time_is_of_our_age() {
        assert!(SystemClock.now() > Timestamp::UNIX_EPOCH);
    }
}
