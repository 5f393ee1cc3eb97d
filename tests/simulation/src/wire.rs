//! The ports of one actor: memory underneath, and at every call the chance that something goes wrong.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use packshot_pipeline::{
    ledger::{Entry, State},
    model::{etag::Etag, event::Fact, keys, notification::Notice},
    ports::{
        Body, Clock, Journal, NoticeError, Notices, Object, ObjectMeta, Outgoing, Page, Ports, Precondition, Queue,
        QueueError, Store, StoreError,
    },
};
use tokio::{sync::Notify, time::sleep};

use super::{
    bug::Bug,
    plan::{Moment, up_to},
    world::{Role, World},
};

/// Ports as one invocation of one process sees them.
pub(super) struct Wire {
    pub(super) world: Arc<World>,
    pub(super) actor: Actor,
    /// For a planted bug: messages that wait for the checkpoint.
    late_messages: Mutex<Vec<Outgoing>>,
    /// For a planted bug: the answer to the last write of the ledger was lost.
    ledger_answer_lost: AtomicBool,
}

/// Who calls.
#[derive(Clone)]
pub(super) struct Actor {
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    /// Told when the process dies.
    pub(super) death: Arc<Notify>,
    /// When the invocation ends, whatever it does.
    pub(super) deadline: Timestamp,
}

/// A port call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Call {
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

    /// What a call counts as: the call, and the prefix that it is about.
    pub(super) fn kind(self, key: &str) -> (&'static str, &'static str) {
        const PREFIXES: [&str; 6] = ["incoming/", "results/", "ledger/", "control/", "images/", "manifests/"];
        let about = match self {
            Self::Head | Self::Open | Self::Put | Self::PutStream | Self::List => {
                PREFIXES.into_iter().find(|prefix| key.starts_with(prefix))
            }
            Self::SendRows | Self::SendRetry | Self::Delay | Self::Generate | Self::Fetch | Self::Publish => None,
        };
        (self.name(), about.unwrap_or_default())
    }
}

/// What goes wrong at a port call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No effect, and the caller is told so.
    Before,
    /// The effect is done and the answer is lost.
    After,
    /// The answer is lost, and the effect comes some time later.
    Late(Duration),
    /// A conditional write meets its own success.
    OwnSuccess,
    /// It takes long.
    Stall(Duration),
    /// A stream breaks off half-way.
    Break,
    /// The process dies.
    Die(Moment),
}

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Before => "failed before",
            Self::After => "failed after",
            Self::Late(_) => "effect came late",
            Self::OwnSuccess => "met its own success",
            Self::Stall(_) => "stalled",
            Self::Break => "stream broke off",
            Self::Die(Moment::Before) => "died before",
            Self::Die(Moment::After) => "died after",
        }
    }
}

impl Wire {
    pub(super) fn ports(world: &Arc<World>, actor: Actor) -> Ports {
        let wire = Arc::new(Self {
            world: world.clone(),
            actor,
            late_messages: Default::default(),
            ledger_answer_lost: AtomicBool::new(false),
        });
        Ports {
            store: wire.clone(),
            rows: Arc::new(Pipe { wire: wire.clone(), call: Call::SendRows }),
            retry: Arc::new(Pipe { wire: wire.clone(), call: Call::SendRetry }),
            images: wire.clone(),
            clock: world.clock.clone(),
            journal: wire.clone(),
            notices: wire,
        }
    }

    /// What befalls this call. Returns after the way there.
    pub(super) async fn way(&self, call: Call, key: &str) -> Option<Fault> {
        let (latency, fault) = self.world.befalls(self.actor.role, call, key);
        if !latency.is_zero() {
            sleep(latency).await;
        }
        match fault {
            Some(Fault::Stall(long)) => sleep(long).await,
            Some(Fault::Die(Moment::Before)) => self.die(call, key, "died before").await,
            _ => {}
        }
        fault
    }

    pub(super) async fn die<T>(&self, call: Call, key: &str, how: &str) -> T {
        self.trace(call, key, how);
        self.actor.death.notify_one();
        pending().await
    }

    pub(super) fn trace(&self, call: Call, key: &str, outcome: &str) {
        self.world.trace(&self.actor.name, call, key, outcome);
    }

    /// The way back from a read.
    async fn answer_read<T>(&self, call: Call, key: &str, fault: Option<Fault>, answer: T) -> Result<T, StoreError> {
        match fault {
            Some(fault @ (Fault::Before | Fault::After)) => {
                self.trace(call, key, fault.name());
                let detail = "simulated".to_owned();
                Err(if fault == Fault::Before {
                    StoreError::Unavailable { detail }
                } else {
                    StoreError::Unknown { detail }
                })
            }
            Some(Fault::Die(Moment::After)) => self.die(call, key, "died after").await,
            _ => {
                self.trace(call, key, "ok");
                Ok(answer)
            }
        }
    }

    /// The effect of a write, and the way back.
    async fn write(
        &self,
        call: Call,
        key: &str,
        body: Bytes,
        precondition: Precondition,
        fault: Option<Fault>,
    ) -> Result<Etag, StoreError> {
        let detail = "simulated".to_owned();
        let conditional = precondition != Precondition::None;
        let precondition = self.relaxed(key, precondition);
        let body = self.corrupted(key, body);
        match fault {
            Some(Fault::Before) => {
                self.trace(call, key, "failed before");
                return Err(StoreError::Unavailable { detail });
            }
            Some(Fault::Late(after)) if conditional => {
                self.trace(call, key, "effect comes late");
                self.world.write_later(key.to_owned(), body, precondition, after);
                return Err(StoreError::Unknown { detail });
            }
            _ => {}
        }
        if self.world.plan.bug == Some(Bug::NoClaim) && is_claim(key, &body) {
            return Ok(Etag("nothing".into()));
        }
        let outcome = self.world.write(key, body, precondition).await;
        match (fault, &outcome) {
            (Some(Fault::Die(Moment::After)), _) => self.die(call, key, "died after").await,
            (Some(Fault::After), _) => {
                self.trace(call, key, "failed after");
                Err(StoreError::Unknown { detail })
            }
            (Some(Fault::OwnSuccess), Ok(_)) if conditional => {
                self.trace(call, key, "met its own success");
                Err(StoreError::Conflict { key: key.to_owned() })
            }
            (_, Ok(_)) => {
                self.trace(call, key, "ok");
                self.send_late_messages().await;
                outcome
            }
            (_, Err(_)) => {
                self.trace(call, key, "conflict");
                outcome
            }
        }
    }

    fn relaxed(&self, key: &str, precondition: Precondition) -> Precondition {
        let without = match self.world.plan.bug {
            Some(Bug::LedgerReadThenWrite) => key.starts_with("ledger/"),
            Some(Bug::ResultsWithoutPrecondition) => key.starts_with("results/") && key.ends_with(".jsonl"),
            Some(Bug::MergeWithoutPrecondition) => key.starts_with("manifests/"),
            Some(Bug::LatestWithoutLook) => key.ends_with("/latest.json"),
            _ => false,
        };
        if without { Precondition::None } else { precondition }
    }

    fn corrupted(&self, key: &str, body: Bytes) -> Bytes {
        if self.world.plan.bug == Some(Bug::NoLease) && is_claim(key, &body) {
            let mut entry: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            entry["state"]["claimed"]["until"] = entry["state"]["claimed"]["at"].clone();
            return entry.to_string().into();
        }
        body
    }

    /// Whether a planted bug hides this object.
    fn hidden(&self, key: &str) -> bool {
        match self.world.plan.bug {
            Some(Bug::BreakerIgnored) => key == keys::BREAKER,
            Some(Bug::LatestWithoutLook) => key.ends_with("/latest.json"),
            _ => false,
        }
    }
}

fn is_claim(key: &str, body: &[u8]) -> bool {
    key.starts_with("ledger/") && matches!(serde_json::from_slice(body), Ok(Entry { state: State::Claimed(_), .. }))
}

fn counts_unknown(key: &str, body: &[u8]) -> bool {
    key.starts_with("ledger/")
        && !is_claim(key, body)
        && serde_json::from_slice(body).is_ok_and(|entry: Entry| entry.spent.unknown > 0)
}

#[async_trait]
impl Store for Wire {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let fault = self.way(Call::Head, key).await;
        let answer = self.world.store.head(key).await?;
        self.answer_read(Call::Head, key, fault, answer).await
    }

    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        let fault = self.way(Call::Open, key).await;
        let mut answer = self.world.store.open(key, version).await?;
        if self.hidden(key) {
            answer = None;
        }
        if fault == Some(Fault::Break)
            && let Some(object) = &mut answer
        {
            let whole = std::mem::replace(&mut object.body, stream::empty().boxed());
            let broken = Err(StoreError::Unavailable { detail: "simulated: the stream broke off".into() });
            let half = whole.take(1).map(|chunk| chunk.map(|bytes| bytes.slice(..bytes.len() / 2)));
            object.body = half.chain(stream::iter([broken])).boxed();
        }
        self.answer_read(Call::Open, key, fault, answer).await
    }

    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
        let fault = self.way(Call::Put, key).await;
        if key.starts_with("ledger/") {
            let lost = matches!(fault, Some(Fault::After | Fault::OwnSuccess));
            self.ledger_answer_lost.store(lost, Ordering::Relaxed);
        }
        let bug = self.world.plan.bug == Some(Bug::NotedUncounted);
        if bug && fault == Some(Fault::Before) && counts_unknown(key, &body) {
            self.world.oracle(|oracle| oracle.noted(Fact::OutcomeUnknown));
        }
        self.write(Call::Put, key, body, precondition, fault).await
    }

    async fn put_stream(&self, key: &str, mut body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError> {
        let fault = self.way(Call::PutStream, key).await;
        let mut whole = BytesMut::new();
        while let Some(chunk) = body.next().await {
            match chunk {
                Ok(chunk) if fault == Some(Fault::Break) => {
                    whole.extend_from_slice(&chunk[..chunk.len() / 2]);
                    self.half_visible(key, &whole, &precondition).await;
                    self.trace(Call::PutStream, key, "stream broke off");
                    return Err(StoreError::Unavailable { detail: "simulated: the upload broke off".into() });
                }
                Ok(chunk) => whole.extend_from_slice(&chunk),
                Err(error) => {
                    self.half_visible(key, &whole, &precondition).await;
                    self.trace(Call::PutStream, key, "its source failed");
                    return Err(error);
                }
            }
        }
        self.write(Call::PutStream, key, whole.freeze(), precondition, fault).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        let fault = self.way(Call::List, prefix).await;
        let mut answer = self.world.store.list(prefix, after).await?;
        if self.world.plan.bug == Some(Bug::StaleList) {
            self.world.make_stale(prefix, &mut answer);
        }
        self.answer_read(Call::List, prefix, fault, answer).await
    }
}

impl Wire {
    /// For a planted bug: what should have been sent before the write that has just gone well.
    async fn send_late_messages(&self) {
        let late = std::mem::take(&mut *self.late_messages.lock().unwrap_or_else(PoisonError::into_inner));
        if !late.is_empty() {
            self.world.send_rows(&late).await;
        }
    }

    async fn half_visible(&self, key: &str, half: &[u8], precondition: &Precondition) {
        if self.world.plan.bug == Some(Bug::HalfVisible) {
            let _ = self.world.write(key, Bytes::copy_from_slice(half), precondition.clone()).await;
        }
    }
}

impl Journal for Wire {
    fn note(&self, fact: Fact) {
        self.world.say(format_args!("{} notes {fact:?}", self.actor.name));
        let lost = self.ledger_answer_lost.load(Ordering::Relaxed);
        if self.world.plan.bug == Some(Bug::LostAnswerUnnoted) && fact == Fact::OutcomeUnknown && lost {
            return;
        }
        self.world.oracle(|oracle| oracle.noted(fact));
    }
}

#[async_trait]
impl Notices for Wire {
    async fn publish(&self, notice: &Notice) -> Result<(), NoticeError> {
        let key = notice.job.as_str();
        let fault = self.way(Call::Publish, key).await;
        let unsent = || Err(NoticeError::Unsent { detail: "simulated".into() });
        if fault == Some(Fault::Before) {
            self.trace(Call::Publish, key, "failed before");
            return unsent();
        }
        if self.world.plan.bug != Some(Bug::NoticesLost) {
            self.world.oracle(|oracle| oracle.told(notice));
        }
        match fault {
            Some(Fault::Die(Moment::After)) => self.die(Call::Publish, key, "died after").await,
            Some(Fault::After) => {
                self.trace(Call::Publish, key, "failed after");
                unsent()
            }
            _ => {
                self.trace(Call::Publish, key, notice.status.as_str());
                Ok(())
            }
        }
    }
}

/// One of the two queues.
struct Pipe {
    wire: Arc<Wire>,
    call: Call,
}

#[async_trait]
impl Queue for Pipe {
    async fn send(&self, messages: &[Outgoing]) -> Result<(), QueueError> {
        let Wire { world, .. } = &*self.wire;
        let fault = self.wire.way(self.call, "").await;
        let mut unsent: Vec<usize> = match fault {
            Some(Fault::Before | Fault::Break) => (0..messages.len()).collect(),
            // Some entries in `Failed`.
            Some(Fault::Late(_) | Fault::OwnSuccess) => (0..messages.len()).filter(|n| n % 3 == 1).collect(),
            _ => Vec::new(),
        };
        let sent: Vec<Outgoing> =
            (0..messages.len()).filter(|n| unsent.binary_search(n).is_err()).map(|n| messages[n].clone()).collect();
        let bug = world.plan.bug;
        if self.call == Call::SendRetry {
            world.saw_retry(&sent);
            if bug != Some(Bug::RetryQueueLoses) {
                world.retry.send(&sent).await?;
            }
        } else if bug == Some(Bug::CheckpointAhead) {
            self.wire.late_messages.lock().unwrap_or_else(PoisonError::into_inner).extend(sent);
        } else if bug == Some(Bug::SkuCut) {
            world.rows.send(&sent.iter().map(without_end_of_sku).collect::<Vec<_>>()).await?;
        } else {
            world.rows.send(&sent).await?;
        }
        match fault {
            Some(Fault::Die(Moment::After)) => self.wire.die(self.call, "", "died after").await,
            // The answer was lost: nobody knows, so all count as not sent.
            Some(Fault::After) => unsent = (0..messages.len()).collect(),
            _ => {}
        }
        self.wire.trace(
            self.call,
            &format!("{} messages", messages.len()),
            if unsent.is_empty() { "ok" } else { "unsent" },
        );
        if unsent.is_empty() { Ok(()) } else { Err(QueueError::Unsent { unsent, detail: "simulated".into() }) }
    }

    async fn delay(&self, receipt: &str, delay: Duration) -> Result<(), QueueError> {
        let fault = self.wire.way(Call::Delay, receipt).await;
        let refused = || Err(QueueError::Refused { detail: "simulated".into() });
        if fault == Some(Fault::Before) {
            self.wire.trace(Call::Delay, receipt, "failed before");
            return refused();
        }
        let outcome = self.wire.world.rows.delay(receipt, delay).await;
        match fault {
            Some(Fault::Die(Moment::After)) => self.wire.die(Call::Delay, receipt, "died after").await,
            Some(Fault::After) => {
                self.wire.trace(Call::Delay, receipt, "failed after");
                refused()
            }
            _ => {
                self.wire.trace(Call::Delay, receipt, if outcome.is_ok() { "ok" } else { "refused" });
                outcome
            }
        }
    }
}

fn without_end_of_sku(message: &Outgoing) -> Outgoing {
    let mut body: serde_json::Value = serde_json::from_str(&message.body).unwrap_or_default();
    let sku = body["sku"].as_str().map(|sku| sku.chars().take(sku.chars().count() - 1).collect::<String>());
    body["sku"] = sku.into();
    Outgoing { body: body.to_string(), attributes: BTreeMap::new() }
}

/// Time and chance of a run.
pub(super) struct SimClock {
    pub(super) epoch: Timestamp,
    pub(super) began: tokio::time::Instant,
    pub(super) random: Mutex<fastrand::Rng>,
    pub(super) constant: bool,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.began.elapsed()
    }

    fn random(&self) -> u64 {
        if self.constant {
            return 7;
        }
        self.random.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }
}

/// Draws a fault. Deaths apart, every kind is as likely as any other; a call that cannot have one has none.
pub(super) fn draw(rng: &mut fastrand::Rng, deaths: u32, stall: Duration) -> Fault {
    if rng.u32(0..100) < deaths {
        return Fault::Die(if rng.bool() { Moment::Before } else { Moment::After });
    }
    match rng.u32(0..6) {
        0 => Fault::Before,
        1 => Fault::After,
        2 => Fault::Late(up_to(rng, stall)),
        3 => Fault::OwnSuccess,
        4 => Fault::Stall(up_to(rng, stall)),
        _ => Fault::Break,
    }
}
