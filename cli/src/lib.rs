//! The `packshot` command, as a library: what its binary and the tests call.

pub mod stub_api;
