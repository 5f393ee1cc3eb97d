//! What an operator can decide. The hosts fill these in: the Lambdas from their environment, the command line from flags.

use std::{num::NonZeroU32, time::Duration};

use crate::model::column::ColumnMap;
use crate::model::defaults::Defaults;

/// What the splitter is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitSettings {
    /// Request fields for rows that do not say otherwise.
    pub defaults: Defaults,
    /// Which column of the file is which, where it cannot be recognised.
    pub column_map: ColumnMap,
    /// More rows than this make the file not a catalog.
    pub max_rows: u64,
    /// More pictures than this in one job make the file not a catalog; no limit when absent.
    pub max_images: Option<u64>,
}

impl Default for SplitSettings {
    fn default() -> Self {
        Self { defaults: Defaults::default(), column_map: ColumnMap::new(), max_rows: 10_000_000, max_images: None }
    }
}

/// What happens to rows while the account cannot pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountPolicy {
    /// Messages wait; nothing is failed; calls resume by themselves when a probe succeeds.
    Pause,
    /// Each row gets its failed result and its place in the retry queue.
    Fail,
}

/// What the generator is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateSettings {
    /// The API adapter gives up a call after this long. No call starts later than this before the deadline.
    pub request_timeout: Duration,
    /// Calls after the first one that failed for a passing reason.
    pub retries: u32,
    /// A `Retry-After` beyond this is cut to it.
    pub retry_after_ceiling: Duration,
    /// Calls after the first one whose outcome is unknown, and which may therefore be paid twice.
    pub unknown_outcome_retries: u32,
    /// How long a paid outcome is reused by other rows; zero never reuses.
    pub reuse: Duration,
    /// Keep the pictures under `images/`.
    pub archive: bool,
    /// What an empty balance or a bad key does.
    pub account_errors: AccountPolicy,
    /// Calls started per minute and process; no limit when absent.
    pub requests_per_minute: Option<NonZeroU32>,
    /// A job with more failed rows than this, in percent, stops calling; never when absent.
    pub max_failed_percent: Option<u8>,
    /// No other process works on this store, so a claim that this process did not make is dead. Only the local run may
    /// say so, because it holds the lock.
    pub sole_worker: bool,
}

impl Default for GenerateSettings {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(300),
            retries: 2,
            retry_after_ceiling: Duration::from_secs(60),
            unknown_outcome_retries: 1,
            reuse: Duration::from_secs(30 * 24 * 3600),
            archive: true,
            account_errors: AccountPolicy::Pause,
            requests_per_minute: None,
            max_failed_percent: None,
            sole_worker: false,
        }
    }
}
