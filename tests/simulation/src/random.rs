//! Chance: one generator per concern, all of them derived from the seed.

use std::time::Duration;

use fastrand::Rng;

/// What a generator decides about. Each concern draws from its own, so that one draw more in one of them does not change
/// what the others draw.
#[derive(Clone, Copy)]
pub(crate) enum Concern {
    Plan = 0,
    Nonces = 1,
    Faults = 2,
    Latency = 3,
    Api = 4,
    Events = 5,
    Hosts = 6,
}

pub(crate) fn rng(seed: u64, concern: Concern) -> Rng {
    Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (concern as u64).wrapping_mul(0xd134_2543_de82_ef95))
}

/// True in `percent` of 100 draws.
pub(crate) fn percent(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(0..100) < percent
}

/// A duration of whole milliseconds from zero to `limit`.
pub(crate) fn up_to(rng: &mut Rng, limit: Duration) -> Duration {
    Duration::from_millis(rng.u64(0..=u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))
}

/// One of the values, each as likely as any other.
pub(crate) fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(0..of.len())]
}
