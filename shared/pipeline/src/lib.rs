//! The domain of packshot and its three use cases.
//!
//! [`split::split`] turns a catalog into messages, [`generate::generate`] turns messages into results, [`merge::merge`]
//! turns results into a manifest. They reach the outside world through [`ports::Ports`] only: nothing here knows AWS,
//! HTTP, the environment or the time of day.
//!
//! Imports run one way: [`model`] ← [`ports`] ← {[`storage`], [`ledger`], [`catalog`], [`settings`], [`notify`]} ← stages.
//! The stages do not know each other.

pub mod catalog;
pub mod check;
pub mod cost;
pub mod generate;
#[cfg(test)]
mod golden;
pub mod ledger;
pub mod merge;
pub mod model;
pub mod notify;
pub mod ports;
pub mod settings;
pub mod split;
pub mod storage;
