//! Mistakes that the world can make on purpose, to prove that the oracle would see them. None of them is in the product's
//! code: they are at the ports, in the host or in the settings, where they amount to the same.

/// A planted mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The ledger is read and then written without a precondition.
    LedgerReadThenWrite,
    /// Every nonce is the same.
    SameNonce,
    /// Claims are not written.
    NoClaim,
    /// Claims end at once.
    NoLease,
    /// The host deletes messages before they are handled.
    AckBeforeResult,
    /// The host deletes messages that must come back.
    AckWhatComesBack,
    /// Results are written without a precondition.
    ResultsWithoutPrecondition,
    /// Parts and manifests are written without a precondition.
    MergeWithoutPrecondition,
    /// Unknown outcomes are tried again without end.
    UnknownRetriedFreely,
    /// Paid outcomes are not reused.
    NeverReuse,
    /// `latest.json` is written without a look at what stands there.
    LatestWithoutLook,
    /// Listings are a little behind.
    StaleList,
    /// A stream that breaks off becomes visible as far as it came.
    HalfVisible,
    /// The checkpoint is written before the messages are sent.
    CheckpointAhead,
    /// The retry queue loses what is sent to it.
    RetryQueueLoses,
    /// Nobody looks at the breaker.
    BreakerIgnored,
    /// The generator does not know its deadline.
    DeadlineUnknown,
    /// Some events of results are lost for good.
    EventsLost,
    /// The last character of a SKU is lost on the way to the generator.
    SkuCut,
    /// Nobody hears of a job's end.
    NoticesLost,
    /// What the ledger counts by a write whose answer is lost is not noted.
    LostAnswerUnnoted,
    /// An unknown outcome is noted though the write that counts it did not happen.
    NotedUncounted,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::LedgerReadThenWrite,
        Self::SameNonce,
        Self::NoClaim,
        Self::NoLease,
        Self::AckBeforeResult,
        Self::AckWhatComesBack,
        Self::ResultsWithoutPrecondition,
        Self::MergeWithoutPrecondition,
        Self::UnknownRetriedFreely,
        Self::NeverReuse,
        Self::LatestWithoutLook,
        Self::StaleList,
        Self::HalfVisible,
        Self::CheckpointAhead,
        Self::RetryQueueLoses,
        Self::BreakerIgnored,
        Self::DeadlineUnknown,
        Self::EventsLost,
        Self::SkuCut,
        Self::NoticesLost,
        Self::LostAnswerUnnoted,
        Self::NotedUncounted,
    ];
}
