//! Shared by the tests: the contract of each port, a clock, the JSON Schemas, and clients of the demo API and the local AWS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

pub mod clock;
pub mod contract;
pub mod demo_api;
pub mod schema;
pub mod stack;

use std::path::PathBuf;

/// The path of the command-line tool in the workspace's build.
#[must_use]
pub fn packshot() -> PathBuf {
    binary("packshot")
}

/// The path of an executable in the workspace's build, which is one directory above the test binaries.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push(name);
    assert!(path.exists(), "{} is not built; run `make test`, or `cargo build --workspace` first", path.display());
    path
}
