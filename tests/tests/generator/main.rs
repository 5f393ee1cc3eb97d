//! The generator: a model check of its ledger protocol, and the use case over ports in memory (`harness.rs`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic fails the test")]
#![allow(clippy::print_stdout, reason = "the model check prints the number of its states")]

mod account;
mod calls;
mod harness;
mod images;
mod ledger;
mod ledger_model;
mod messages;
mod metrics;
