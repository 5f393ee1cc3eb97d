//! The domain of packshot and its three use cases.
//!
//! [`split::split`] turns a catalog into messages, [`generate::generate`] turns messages into results, [`merge::merge`]
//! turns results into a manifest. They speak to the outside world through [`ports::Ports`] only: nothing here knows AWS,
//! HTTP, the environment or the time of day.

pub mod archive;
pub mod breaker;
pub mod check;
pub mod classify;
pub mod columns;
pub mod cost;
pub mod generate;
#[cfg(test)]
mod golden;
pub mod guardrail;
pub mod intake;
pub mod job;
pub mod journal;
pub mod json;
pub mod keys;
pub mod ledger;
pub mod merge;
pub mod message;
pub mod notice;
pub mod objects;
pub mod pace;
pub mod ports;
pub mod prompt;
pub mod request;
pub mod result;
mod review;
pub mod row;
pub mod settings;
pub mod split;
pub mod spreadsheet;
pub mod summary;
pub mod sweep;
pub mod worker;
