//! Who has to act on a failed row.

use serde::{Deserialize, Serialize};

/// Who has to act on a failed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ErrorClass {
    /// The row itself: it will fail again until someone changes it.
    Row,
    /// Nobody: it may work later.
    Transient,
    /// Whoever pays for or configures the API account.
    Account,
    /// Nobody knows whether the call was billed; a person decides whether to risk another.
    Unknown,
    /// Nobody called: the job was stopped because too many of its rows failed.
    Aborted,
}

impl ErrorClass {
    /// The word in results and message attributes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Transient => "transient",
            Self::Account => "account",
            Self::Unknown => "unknown",
            Self::Aborted => "aborted",
        }
    }

    /// Whether sending the same row again can help, so that it gets a place in the retry queue.
    #[must_use]
    pub fn may_heal(self) -> bool {
        self != Self::Row
    }
}
