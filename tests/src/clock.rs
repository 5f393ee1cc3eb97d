//! A clock for tests: time that a test controls, and random numbers from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use packshot_pipeline::ports::Clock;
use tokio::time::Instant;

/// Derives the time of day from Tokio's clock, which a test may pause.
pub struct TestClock {
    began: Instant,
    state: AtomicU64,
}

impl TestClock {
    /// Starts at noon on 1 January 2026. The same seed gives the same random numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { began: Instant::now(), state: AtomicU64::new(seed) }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let noon: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        noon + self.began.elapsed()
    }

    fn random(&self) -> u64 {
        // SplitMix64.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
