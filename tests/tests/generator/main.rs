//! The generator: the protocol of its ledger by exhaustion, and the use case over ports in memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "the model tells how many states it has been through")]

mod account;
mod calls;
mod facts;
mod ledger;
mod ledger_model;
mod messages;
mod pictures;
mod rig;
