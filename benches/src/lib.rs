//! Sample data that the harness and the criterion benches share.

pub mod samples;
