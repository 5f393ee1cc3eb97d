//! The domain of packshot and its three use cases.
//!
//! [`split::split`] turns a catalog into messages, [`generate::generate`] turns messages into results, and [`merge::merge`]
//! turns results into a manifest. They reach the outside world only through [`ports::Ports`]: nothing here depends on AWS,
//! HTTP, the environment or the time of day.
//!
//! Imports run one way: [`model`] ← [`ports`] ← {[`storage`], [`ledger`], [`catalog`], [`settings`], [`notify`]} ← stages.
//! The stages do not import each other.

#[cfg(test)]
mod borders;
pub mod catalog;
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
