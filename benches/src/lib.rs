//! What the harness and the criterion benches measure with: catalogs, results and messages of any size.

pub mod samples;
