//! The `packshot` command, as a library: what its binary and the tests call.

pub mod adapters;
pub mod command;
pub mod environment;
pub mod overrides;
pub mod progress;
pub mod redrive;
pub mod run;
pub mod simulate;
pub mod stub_api;
