//! The time of day and the nonces of a run.

use fastrand::Rng;
use jiff::Timestamp;
use packshot_pipeline::ports::Clock;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    mutation::Mutation,
    plan::Plan,
    random::{Concern, rng},
};

/// Tokio's paused clock as time of day, and nonces from the seed.
pub(crate) struct SimClock {
    epoch: Timestamp,
    pub(crate) began: Instant,
    random: Mutex<Rng>,
    /// For a planted mutation: every nonce is the same.
    constant: bool,
}

impl SimClock {
    /// Starts now.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            // Not on a full second, because the bucket keeps no fractions of one.
            epoch: Timestamp::from_millisecond(1_800_000_000_400).unwrap_or_default(),
            began: Instant::now(),
            random: Mutex::new(rng(plan.seed, Concern::Nonces)),
            constant: plan.mutation == Some(Mutation::SameNonce),
        }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.began.elapsed()
    }

    fn random(&self) -> u64 {
        if self.constant { 7 } else { self.random.lock().u64(..) }
    }
}
