//! The account breaker: if the API account cannot be charged, no process calls for any row until a probe has succeeded.
//!
//! `control/breaker.json` is its whole state. An account error opens it. When the time of the next probe has come, one
//! process at a time wins a conditional write and calls for one row. A success closes the breaker and all calls resume; a
//! failure postpones the next probe, twice as long each time. Every process reads the file every few seconds.

use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    model::keys,
    ports::{Ports, StoreError},
    storage::{Current, Document, Written},
};

/// The maximum age of what a process knows of the breaker: within this time every process stops.
const READ_EVERY: Duration = Duration::from_secs(5);
/// From opening to the first probe, and from one failed probe to the next; doubles with every failed probe.
const FIRST_PROBE: Duration = Duration::from_secs(60);
const MAX_PROBE: Duration = Duration::from_secs(15 * 60);

/// `control/breaker.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerFile {
    /// Format version.
    pub v: u32,
    /// Whether calls are suspended.
    pub open: bool,
    /// What the API said.
    pub reason: String,
    /// The API's error code.
    pub code: String,
    /// When it was opened or closed.
    pub since: Timestamp,
    /// When one process may probe.
    pub next_probe: Timestamp,
    /// Probes that have failed since it opened.
    pub probes: u32,
    /// Chosen by the last writer, who recognises its own write by it.
    pub nonce: String,
}

/// Whether a call may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BreakerDecision {
    /// The breaker is closed.
    Call,
    /// The breaker is open, and this call is the probe.
    Probe,
    /// The breaker stays open at least this long.
    Suspend(Duration),
}

/// What one process knows of the breaker.
#[derive(Default)]
pub struct Breaker {
    /// The breaker as it was read or written last, and when.
    view: Mutex<Option<(Instant, Option<BreakerFile>)>>,
    /// Locked while one row reads for all that wait; holds the last read that failed.
    reading: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
}

impl Breaker {
    /// Decides about a call. `call_takes` is how long a probe keeps others from probing.
    pub async fn decide(&self, ports: &Ports, call_takes: Duration) -> Result<BreakerDecision, StoreError> {
        let Some(open) = self.recent(ports).await?.filter(|file| file.open) else { return Ok(BreakerDecision::Call) };
        let now = ports.clock.now();
        if now < open.next_probe {
            Ok(BreakerDecision::Suspend(until(now, open.next_probe)))
        } else {
            self.probe(ports, call_takes).await
        }
    }

    /// Whether calls are suspended. Does not claim the probe.
    pub async fn is_open(&self, ports: &Ports) -> Result<bool, StoreError> {
        Ok(self.recent(ports).await?.is_some_and(|file| file.open))
    }

    /// The breaker as it was a few seconds ago at most. The rows of a batch ask at the same moment, and one of them reads.
    async fn recent(&self, ports: &Ports) -> Result<Option<BreakerFile>, StoreError> {
        let asked = Instant::now();
        let known = || self.view.lock().clone().filter(|(at, _)| at.elapsed() < READ_EVERY);
        if let Some((_, file)) = known() {
            return Ok(file);
        }
        let mut failed = self.reading.lock().await;
        if let Some((_, file)) = known() {
            return Ok(file);
        }
        if let Some((_, error)) = failed.as_ref().filter(|(at, _)| *at >= asked) {
            // Otherwise the rows would fail one after the other, each with all its repeats.
            return Err(error.clone());
        }
        match self.read(ports).await {
            Ok(current) => Ok(current.value),
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Claims the probe, unless another process has claimed it.
    async fn probe(&self, ports: &Ports, call_takes: Duration) -> Result<BreakerDecision, StoreError> {
        let Current { value, unchanged } = self.read(ports).await?;
        let Some(open) = value.filter(|file| file.open) else { return Ok(BreakerDecision::Call) };
        let now = ports.clock.now();
        if now < open.next_probe {
            return Ok(BreakerDecision::Suspend(until(now, open.next_probe)));
        }
        let nonce = new_nonce(ports);
        let next = BreakerFile { next_probe: later(now, call_takes), nonce: nonce.clone(), ..open };
        match document().replace(ports, &next, unchanged, |file| file.nonce == nonce).await? {
            Written::Own(_) => {
                self.remember(Some(next));
                Ok(BreakerDecision::Probe)
            }
            Written::Other(Current { value, .. }) => {
                self.remember(value.clone());
                let open = value.filter(|file| file.open);
                Ok(open.map_or(BreakerDecision::Call, |file| BreakerDecision::Suspend(until(now, file.next_probe))))
            }
        }
    }

    /// Opens the breaker after an account error; returns how long calls stay suspended. If it is open already, only the
    /// failure of a probe changes it: calls that were in flight when it opened meet the same error, and say nothing new.
    pub async fn trip(&self, ports: &Ports, probe: bool, code: &str, reason: &str) -> Result<Duration, StoreError> {
        let now = ports.clock.now();
        let nonce = new_nonce(ports);
        self.change(ports, |file| match file {
            Some(file) if file.nonce == nonce => None,
            Some(file) if file.open && !probe => None,
            Some(file) if file.open => {
                let pause = FIRST_PROBE.saturating_mul(1 << file.probes.min(10)).min(MAX_PROBE);
                let next_probe = later(now, pause);
                let (reason, code, nonce) = (reason.to_owned(), code.to_owned(), nonce.clone());
                Some(BreakerFile { reason, code, nonce, next_probe, probes: file.probes + 1, ..file.clone() })
            }
            _ => Some(BreakerFile {
                v: 1,
                open: true,
                reason: reason.to_owned(),
                code: code.to_owned(),
                since: now,
                next_probe: later(now, FIRST_PROBE),
                probes: 0,
                nonce: nonce.clone(),
            }),
        })
        .await?;
        let next = self.opened().map_or(now, |file| file.next_probe);
        Ok(until(now, next).max(Duration::from_secs(1)))
    }

    /// Closes the breaker after a successful probe.
    pub async fn close(&self, ports: &Ports) -> Result<(), StoreError> {
        let now = ports.clock.now();
        let nonce = new_nonce(ports);
        self.change(ports, |file| {
            let open = file.filter(|file| file.open)?;
            Some(BreakerFile { open: false, since: now, probes: 0, nonce: nonce.clone(), ..open.clone() })
        })
        .await
    }

    /// The breaker as this process read or wrote it last, if it was open.
    #[must_use]
    pub fn opened(&self) -> Option<BreakerFile> {
        self.view.lock().as_ref().and_then(|(_, file)| file.clone()).filter(|file| file.open)
    }

    async fn change(
        &self,
        ports: &Ports,
        change: impl FnMut(Option<&BreakerFile>) -> Option<BreakerFile>,
    ) -> Result<(), StoreError> {
        let document = document();
        let before = document.read_or_discard(ports).await?;
        let after = document.update(ports, before, change).await?;
        self.remember(after);
        Ok(())
    }

    async fn read(&self, ports: &Ports) -> Result<Current<BreakerFile>, StoreError> {
        let current = document().read_or_discard(ports).await?;
        self.remember(current.value.clone());
        Ok(current)
    }

    fn remember(&self, file: Option<BreakerFile>) {
        *self.view.lock() = Some((Instant::now(), file));
    }
}

/// A file that cannot be read counts as a closed breaker; the next account error replaces it.
fn document() -> Document<BreakerFile> {
    Document::pretty(keys::BREAKER)
}

fn new_nonce(ports: &Ports) -> String {
    format!("{:016x}", ports.clock.random())
}

fn later(now: Timestamp, duration: Duration) -> Timestamp {
    now.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO)
}
