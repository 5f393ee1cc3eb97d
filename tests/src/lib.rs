//! What the tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

pub mod clock;
pub mod contract;
pub mod demo_api;
pub mod schema;
pub mod stack;

use std::path::PathBuf;

/// The command as the workspace's build made it.
#[must_use]
pub fn packshot() -> PathBuf {
    binary("packshot")
}

/// An executable as the workspace's build made it, beside the directory of the test binaries.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push(name);
    assert!(path.exists(), "{} is not built; run `make test`, or `cargo build --workspace` first", path.display());
    path
}
