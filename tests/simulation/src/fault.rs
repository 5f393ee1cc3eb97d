//! What can go wrong at a port call.

use std::time::Duration;

use fastrand::Rng;

use crate::{call::Call, random::up_to};

/// Where in a port call a process crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// Before the call has an effect.
    Before,
    /// After the effect, before the answer.
    After,
}

/// A fault of one port call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No effect, and the caller learns so.
    Before,
    /// The effect happens and the answer is lost.
    After,
    /// The answer is lost, and the effect happens some time later.
    Late(Duration),
    /// A conditional write succeeds, is sent again by the client and then finds its own object.
    OwnSuccess,
    /// The call takes this long.
    Stall(Duration),
    /// A stream breaks off halfway.
    Break,
    /// The process crashes.
    Crash(CrashPoint),
}

impl Fault {
    /// Draws a fault: a crash in `crashes` of 100 draws, otherwise each kind with the same probability.
    pub(crate) fn draw(rng: &mut Rng, crashes: u32, stall: Duration) -> Self {
        if rng.u32(0..100) < crashes {
            return Self::Crash(if rng.bool() { CrashPoint::Before } else { CrashPoint::After });
        }
        match rng.u32(0..6) {
            0 => Self::Before,
            1 => Self::After,
            2 => Self::Late(up_to(rng, stall)),
            3 => Self::OwnSuccess,
            4 => Self::Stall(up_to(rng, stall)),
            _ => Self::Break,
        }
    }

    /// Whether this call can have this fault.
    pub(crate) fn applies_to(self, call: Call) -> bool {
        match self {
            Self::Crash(_) | Self::Stall(_) | Self::Before | Self::After => true,
            Self::Late(_) => matches!(call, Call::Put | Call::PutStream | Call::SendRows | Call::SendRetry),
            Self::OwnSuccess => matches!(call, Call::Put | Call::PutStream | Call::SendRows),
            Self::Break => matches!(call, Call::Open | Call::PutStream | Call::Fetch),
        }
    }

    /// The name in statistics and trace.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Before => "failed before",
            Self::After => "failed after",
            Self::Late(_) => "effect came late",
            Self::OwnSuccess => "met its own success",
            Self::Stall(_) => "stalled",
            Self::Break => "stream broke off",
            Self::Crash(CrashPoint::Before) => "died before",
            Self::Crash(CrashPoint::After) => "died after",
        }
    }
}
