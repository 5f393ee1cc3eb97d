//! The account breaker: when the account cannot pay, no row is called for, anywhere, until one probe at a time has shown
//! that it can again. `control/breaker.json` is its whole state.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    model::{json, keys},
    ports::{Ports, Precondition, StoreError},
    storage::{self, Seen},
};

/// How old a look at the breaker may be: the time within which every process stops.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// From opening to the first probe, and from one failed probe to the next; doubles with every failed probe.
const FIRST_PROBE: Duration = Duration::from_secs(60);
const MAX_PROBE: Duration = Duration::from_secs(15 * 60);

/// `control/breaker.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerFile {
    /// Format version.
    pub v: u32,
    /// Whether calls are stopped.
    pub open: bool,
    /// What the API said.
    pub reason: String,
    /// A word for machines.
    pub code: String,
    /// When it opened, or closed.
    pub since: Timestamp,
    /// When one call may be tried.
    pub next_probe: Timestamp,
    /// Probes that failed since it opened.
    pub probes: u32,
    /// Of the last writer; tells one's own write from another's.
    pub nonce: String,
}

/// Whether a call may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pass {
    /// The account is well as far as known.
    Go,
    /// This call is the probe.
    Probe,
    /// Nobody calls for this long.
    Hold(Duration),
}

/// A process's view of the breaker.
#[derive(Default)]
pub struct Breaker {
    view: Mutex<Option<(Instant, Option<BreakerFile>)>>,
    /// Held while one row looks for all that wait; remembers the last look that failed.
    looking: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
}

impl Breaker {
    /// Asks for a call. `call_takes` is how long a probe may keep others from probing.
    pub async fn pass(&self, ports: &Ports, call_takes: Duration) -> Result<Pass, StoreError> {
        let Some(open) = self.recent(ports).await?.filter(|file| file.open) else { return Ok(Pass::Go) };
        let now = ports.clock.now();
        if now < open.next_probe {
            Ok(Pass::Hold(until(now, open.next_probe)))
        } else {
            self.probe(ports, call_takes).await
        }
    }

    /// Whether calls are stopped, without taking the place of the probe.
    pub async fn is_open(&self, ports: &Ports) -> Result<bool, StoreError> {
        Ok(self.recent(ports).await?.is_some_and(|file| file.open))
    }

    /// A look that is not too old. The rows of a batch ask at the same moment; one of them looks.
    async fn recent(&self, ports: &Ports) -> Result<Option<BreakerFile>, StoreError> {
        let asked = Instant::now();
        let known = || self.lock().clone().filter(|(at, _)| at.elapsed() < LOOK_EVERY);
        if let Some((_, file)) = known() {
            return Ok(file);
        }
        let mut failed = self.looking.lock().await;
        if let Some((_, file)) = known() {
            return Ok(file);
        }
        if let Some((_, error)) = failed.as_ref().filter(|(at, _)| *at >= asked) {
            // Else each would fail after the other, with all its repeats.
            return Err(error.clone());
        }
        match self.look(ports).await {
            Ok(found) => Ok(found.map(|(file, _)| file)),
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Takes the place of the probe, if nobody else does.
    async fn probe(&self, ports: &Ports, call_takes: Duration) -> Result<Pass, StoreError> {
        let Some((open, seen)) = self.look(ports).await?.filter(|(file, _)| file.open) else { return Ok(Pass::Go) };
        let now = ports.clock.now();
        if now < open.next_probe {
            return Ok(Pass::Hold(until(now, open.next_probe)));
        }
        let nonce = format!("{:016x}", ports.clock.random());
        let next = BreakerFile { next_probe: later(now, call_takes), nonce: nonce.clone(), ..open };
        let body = json::to_pretty(&next).into();
        match storage::write(ports, keys::BREAKER, body, Precondition::Matches(seen.etag)).await {
            Ok(_) => {
                *self.lock() = Some((Instant::now(), Some(next)));
                Ok(Pass::Probe)
            }
            Err(StoreError::Conflict { .. } | StoreError::Unknown { .. }) => match self.look(ports).await? {
                Some((file, _)) if file.nonce == nonce => Ok(Pass::Probe),
                Some((file, _)) if file.open => Ok(Pass::Hold(until(now, file.next_probe))),
                _ => Ok(Pass::Go),
            },
            Err(error) => Err(error),
        }
    }

    /// The account is not well. Returns for how long nobody calls. Calls that were in flight when the breaker opened meet
    /// the same error; only the probe's says something new.
    pub async fn trip(&self, ports: &Ports, probe: bool, code: &str, reason: &str) -> Result<Duration, StoreError> {
        let now = ports.clock.now();
        let nonce = format!("{:016x}", ports.clock.random());
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

    /// The account is well: everything resumes.
    pub async fn close(&self, ports: &Ports) -> Result<(), StoreError> {
        let now = ports.clock.now();
        let nonce = format!("{:016x}", ports.clock.random());
        self.change(ports, |file| {
            let open = file.filter(|file| file.open)?;
            Some(BreakerFile { open: false, since: now, probes: 0, nonce: nonce.clone(), ..open.clone() })
        })
        .await
    }

    /// What this process last saw, if that was an open breaker.
    #[must_use]
    pub fn opened(&self) -> Option<BreakerFile> {
        self.lock().as_ref().and_then(|(_, file)| file.clone()).filter(|file| file.open)
    }

    async fn change(
        &self,
        ports: &Ports,
        mut change: impl FnMut(Option<&BreakerFile>) -> Option<BreakerFile>,
    ) -> Result<(), StoreError> {
        let seen = storage::read(ports, keys::BREAKER).await?;
        let mut view = None;
        storage::update(ports, keys::BREAKER, seen, |bytes| {
            let file = bytes.and_then(parse);
            let next = change(file.as_ref());
            view = next.clone().or(file);
            next.map(|next| json::to_pretty(&next))
        })
        .await?;
        *self.lock() = Some((Instant::now(), view));
        Ok(())
    }

    async fn look(&self, ports: &Ports) -> Result<Option<(BreakerFile, Seen)>, StoreError> {
        let seen = storage::read(ports, keys::BREAKER).await?;
        let file = seen.and_then(|seen| Some((parse(&seen.bytes)?, seen)));
        *self.lock() = Some((Instant::now(), file.as_ref().map(|(file, _)| file.clone())));
        Ok(file)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Option<BreakerFile>)>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that cannot be read counts as no breaker: the next account error writes it anew.
fn parse(bytes: &[u8]) -> Option<BreakerFile> {
    serde_json::from_slice(bytes).ok()
}

fn later(now: Timestamp, duration: Duration) -> Timestamp {
    now.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO)
}
