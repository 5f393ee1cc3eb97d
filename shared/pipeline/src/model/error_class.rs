//! Error classes: who can fix a failed row, and whether a retry can help.
//!
//! The class decides whether a failed row gets a message in the retry queue.

use serde::{Deserialize, Serialize};

/// Who can fix a failed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ErrorClass {
    /// The author of the catalog: the row fails again until it is changed.
    Row,
    /// No one: a later attempt may succeed.
    Transient,
    /// The owner of the API account: its balance, key or configuration is the cause.
    Account,
    /// The operator: the call may have been billed, and a person decides whether to risk another one.
    Unknown,
    /// The operator: the job was stopped before this row was called for, because too many of its rows failed.
    Aborted,
}

impl ErrorClass {
    /// The value in results and message attributes.
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

    /// Whether sending the same row again can succeed. Such a row gets a message in the retry queue.
    #[must_use]
    pub fn may_heal(self) -> bool {
        self != Self::Row
    }
}
