//! Mistakes that are planted to prove that the oracle notices them.
//!
//! The product's code contains none of them. Each is made at the ports, in a host or in the settings, where it has the effect
//! of the mistake in the code. README.md says which promise each one is for.

use clap::ValueEnum;

/// A planted mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// The ledger is read and then written without a precondition.
    LedgerWithoutPrecondition,
    /// Every nonce is the same.
    SameNonce,
    /// Claims are not written.
    NoClaim,
    /// Claims end at once.
    NoLease,
    /// The host deletes messages before they are handled.
    AckBeforeResult,
    /// The host deletes messages that must come back.
    AckInsteadOfRetry,
    /// Results are written without a precondition.
    ResultsWithoutPrecondition,
    /// Parts and manifests are written without a precondition.
    MergeWithoutPrecondition,
    /// Unknown outcomes are tried again without a limit.
    UnknownRetriedFreely,
    /// Paid outcomes are not reused.
    NeverReuse,
    /// `latest.json` is written without reading the one that exists.
    LatestWithoutRead,
    /// Listings lag a little behind.
    StaleList,
    /// A stream that breaks off leaves a visible object with the bytes so far.
    HalfVisible,
    /// The checkpoint is written before the messages are sent.
    CheckpointAhead,
    /// The retry queue loses what is sent to it.
    RetryQueueLoses,
    /// The breaker is not read.
    BreakerIgnored,
    /// The generator does not know its deadline.
    DeadlineUnknown,
    /// Some events of results are never delivered.
    EventsLost,
    /// The last character of a SKU is lost on the way to the generator.
    SkuCut,
    /// No notification of a job's end arrives.
    NotificationsLost,
    /// An unknown outcome is not recorded if the answer to the write that counts it is lost.
    LostAnswerUnrecorded,
    /// An unknown outcome is recorded though the write that counts it did not happen.
    RecordedUncounted,
}

impl Mutation {
    /// All mutations.
    #[must_use]
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}
