//! What the tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

pub mod clock;
pub mod contract;
pub mod demo_api;
pub mod stack;
