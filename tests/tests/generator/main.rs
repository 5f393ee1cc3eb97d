//! The generator: the protocol of its ledger by exhaustion, and the use case over ports in memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod ledger_model;
mod rig;
