//! Medians and units.

/// The middle of the sorted values; NaN if there are none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of one value of every run.
pub(super) fn median_of<T>(runs: &[T], value: impl Fn(&T) -> f64) -> f64 {
    median(runs.iter().map(value).collect())
}

pub(super) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
