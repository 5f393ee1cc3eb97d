//! The settings of the stages. The hosts fill them in: the Lambdas from their environment, the CLI from its flags.

use std::{num::NonZeroU32, time::Duration};

use crate::model::column::ColumnMap;
use crate::model::defaults::Defaults;

/// Settings of the splitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitSettings {
    /// Request fields of rows that do not set their own.
    pub defaults: Defaults,
    /// Which column of the file is which, if it cannot be recognised.
    pub column_map: ColumnMap,
    /// The largest number of rows; a file with more is rejected.
    pub max_rows: u64,
    /// The largest number of images in one job; a file that asks for more is rejected. No limit when absent.
    pub max_images: Option<u64>,
}

impl Default for SplitSettings {
    fn default() -> Self {
        Self { defaults: Defaults::default(), column_map: ColumnMap::new(), max_rows: 10_000_000, max_images: None }
    }
}

/// What happens to rows after an account error, such as an empty balance or a wrong key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountPolicy {
    /// Messages wait and no row fails. Calls resume when a probe succeeds.
    Pause,
    /// Each row gets a failed result and a message in the retry queue.
    Fail,
}

/// Settings of the generator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateSettings {
    /// Timeout of one call. No call starts that could still run at the deadline.
    pub request_timeout: Duration,
    /// Retries after calls that failed with a transient error.
    pub retries: u32,
    /// The longest `Retry-After` that is honoured; a longer one is shortened to it.
    pub retry_after_ceiling: Duration,
    /// Retries after calls with an unknown outcome. Each of them may be paid for twice.
    pub unknown_outcome_retries: u32,
    /// How long other jobs reuse a paid outcome; zero means never.
    pub reuse: Duration,
    /// Whether images are kept under `images/`.
    pub archive: bool,
    /// What happens to rows after an account error.
    pub account_errors: AccountPolicy,
    /// The largest number of calls started per minute and process; no limit when absent.
    pub requests_per_minute: Option<NonZeroU32>,
    /// A job with a larger share of failed rows, in percent, is stopped; never when absent.
    pub max_failed_percent: Option<u8>,
    /// Whether no other process uses the store, so that a claim of another process is dead. Only a local run may set this,
    /// because it holds the lock.
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
