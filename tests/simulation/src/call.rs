//! A port call: who makes it, and which one it is.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Notify;

/// A stage, and with it the use case that a process runs.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    Splitter,
    Generator,
    Merger,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Splitter => "splitter",
            Self::Generator => "generator",
            Self::Merger => "merger",
        }
    }
}

/// One invocation of one process.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
    /// Notified when the process crashes.
    pub(crate) death: Arc<Notify>,
    /// When the invocation is ended from outside.
    pub(crate) deadline: Timestamp,
}

/// A port call. The order of the variants is part of the trace's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Head,
    Open,
    Put,
    PutStream,
    List,
    SendRows,
    SendRetry,
    Delay,
    Generate,
    Fetch,
    Publish,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Open => "open",
            Self::Put => "put",
            Self::PutStream => "put_stream",
            Self::List => "list",
            Self::SendRows => "send rows",
            Self::SendRetry => "send retry",
            Self::Delay => "delay",
            Self::Generate => "generate",
            Self::Fetch => "fetch",
            Self::Publish => "publish",
        }
    }

    /// What the statistics count a call as: its name, and the prefix of its key if it is a call to the store.
    pub(crate) fn kind(self, key: &str) -> (&'static str, &'static str) {
        const PREFIXES: [&str; 6] = ["incoming/", "results/", "ledger/", "control/", "images/", "manifests/"];
        let prefix = match self {
            Self::Head | Self::Open | Self::Put | Self::PutStream | Self::List => {
                PREFIXES.into_iter().find(|prefix| key.starts_with(prefix))
            }
            Self::SendRows | Self::SendRetry | Self::Delay | Self::Generate | Self::Fetch | Self::Publish => None,
        };
        (self.name(), prefix.unwrap_or_default())
    }
}
