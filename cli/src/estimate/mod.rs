//! What a catalog would cost, before anything is spent.
//!
//! `inspect` reads a file as the splitter would and gives every verdict to an [`EstimateBuilder`](builder::EstimateBuilder), which
//! counts rows, calls and images and asks the ledger what has been paid for. The result is a [`Check`](check::Check): what
//! `packshot check --json` prints, and `report` in words. [`aws_cost`] computes AWS's share.

pub mod aws_cost;
pub mod builder;
pub mod check;
pub(crate) mod inspect;
pub(crate) mod report;
