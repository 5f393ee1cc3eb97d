//! The `packshot` command, as a library: what its binary and the tests call.

pub mod check;
pub mod command;
pub mod environment;
pub mod export;
pub mod overrides;
pub mod place;
pub mod progress;
pub mod redrive;
pub mod review;
pub mod run;
pub mod status;
pub mod stub_api;
pub mod submit;
