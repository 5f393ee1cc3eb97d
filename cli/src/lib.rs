//! The `packshot` command, as a library: what its binary and the tests use.
//!
//! [`command`] parses the arguments and runs one module of `commands`. The work is done beside them: `runner` runs a catalog
//! on this machine, [`estimate`] computes its cost, `submission` uses a deployment, `jobs` and [`job_progress`] read what a
//! bucket has, [`demo_api`] answers where no API key is set. `output` is the only module that prints.

#![warn(clippy::print_stderr)]

mod atomic_file;
mod catalog_file;
pub mod command;
mod commands;
mod contact_sheet;
pub mod demo_api;
mod environment;
pub mod estimate;
pub mod exit_status;
mod export;
pub mod job_progress;
mod jobs;
mod output;
mod overrides;
mod runner;
mod submission;
mod summary_report;
mod target;
