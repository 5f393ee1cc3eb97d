//! The ports of one invocation: memory underneath, and faults at every call.
//!
//! A call waits for its latency, may crash the process before its effect, has its effect, and may crash or lose the answer
//! after it. The store, the metrics and the notifications are here; `faulty_queue.rs` and `images_api.rs` hold the others.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use packshot_pipeline::{
    ledger::{Entry, State},
    model::{etag::Etag, event::MetricEvent, keys, notification::Notification},
    ports::{
        Body, MetricsRecorder, Notifier, NotifyError, Object, ObjectMeta, OutgoingMessage, Page, Precondition, Store,
        StoreError,
    },
};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    call::{Actor, Call},
    fault::{CrashPoint, Fault},
    mutation::Mutation,
    state::SimState,
};

pub(crate) struct FaultyPorts {
    pub(crate) state: Arc<SimState>,
    pub(crate) actor: Actor,
    /// For a planted mutation: messages that wait for the checkpoint.
    late_messages: Mutex<Vec<OutgoingMessage>>,
    /// For a planted mutation: the answer to the last write of the ledger was lost.
    ledger_answer_lost: AtomicBool,
}

impl FaultyPorts {
    pub(crate) fn new(state: Arc<SimState>, actor: Actor) -> Self {
        Self { state, actor, late_messages: Mutex::default(), ledger_answer_lost: AtomicBool::new(false) }
    }

    /// Begins a call: returns its fault, once its latency has passed and unless it crashes the process.
    pub(crate) async fn begin(&self, call: Call, key: &str) -> Option<Fault> {
        let (latency, fault) = self.state.next_call(self.actor.role, call, key);
        if !latency.is_zero() {
            sleep(latency).await;
        }
        match fault {
            Some(Fault::Stall(long)) => sleep(long).await,
            Some(Fault::Crash(CrashPoint::Before)) => self.crash(call, key, CrashPoint::Before).await,
            _ => {}
        }
        fault
    }

    /// Crashes the process in this call, which never returns.
    pub(crate) async fn crash<T>(&self, call: Call, key: &str, point: CrashPoint) -> T {
        self.trace(call, key, Fault::Crash(point).name());
        self.actor.death.notify_one();
        pending().await
    }

    pub(crate) fn trace(&self, call: Call, key: &str, outcome: &str) {
        self.state.trace_call(&self.actor.name, call, key, outcome);
    }

    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.state.plan.mutation == Some(mutation)
    }

    /// For a planted mutation: keeps messages until the next write of this invocation.
    pub(crate) fn keep_messages(&self, messages: Vec<OutgoingMessage>) {
        self.late_messages.lock().extend(messages);
    }

    async fn send_late_messages(&self) {
        let late = std::mem::take(&mut *self.late_messages.lock());
        if !late.is_empty() {
            self.state.send(&self.state.rows, &late).await;
        }
    }

    /// Ends a call that reads.
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
            Some(Fault::Crash(CrashPoint::After)) => self.crash(call, key, CrashPoint::After).await,
            _ => {
                self.trace(call, key, "ok");
                Ok(answer)
            }
        }
    }

    /// Makes the effect of a call that writes, and ends it.
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
        let precondition = self.mutated_precondition(key, precondition);
        let body = self.mutated_body(key, body);
        match fault {
            Some(Fault::Before) => {
                self.trace(call, key, "failed before");
                return Err(StoreError::Unavailable { detail });
            }
            Some(Fault::Late(after)) if conditional => {
                self.trace(call, key, "effect comes late");
                self.state.write_later(key.to_owned(), body, precondition, after);
                return Err(StoreError::Unknown { detail });
            }
            _ => {}
        }
        if self.has(Mutation::NoClaim) && is_claim(key, &body) {
            return Ok(Etag("nothing".into()));
        }
        let outcome = self.state.write(key, body, precondition).await;
        match (fault, &outcome) {
            (Some(Fault::Crash(CrashPoint::After)), _) => self.crash(call, key, CrashPoint::After).await,
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

    fn mutated_precondition(&self, key: &str, precondition: Precondition) -> Precondition {
        let without = match self.state.plan.mutation {
            Some(Mutation::LedgerWithoutPrecondition) => key.starts_with("ledger/"),
            Some(Mutation::ResultsWithoutPrecondition) => key.starts_with("results/") && key.ends_with(".jsonl"),
            Some(Mutation::MergeWithoutPrecondition) => key.starts_with("manifests/"),
            Some(Mutation::LatestWithoutRead) => key.ends_with("/latest.json"),
            _ => false,
        };
        if without { Precondition::None } else { precondition }
    }

    fn mutated_body(&self, key: &str, body: Bytes) -> Bytes {
        if self.has(Mutation::NoLease) && is_claim(key, &body) {
            let mut entry: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            entry["state"]["claimed"]["until"] = entry["state"]["claimed"]["at"].clone();
            return entry.to_string().into();
        }
        body
    }

    /// Whether a planted mutation hides this object from readers.
    fn hidden(&self, key: &str) -> bool {
        match self.state.plan.mutation {
            Some(Mutation::BreakerIgnored) => key == keys::BREAKER,
            Some(Mutation::LatestWithoutRead) => key.ends_with("/latest.json"),
            _ => false,
        }
    }

    /// Ends an upload that broke off. Only a planted mutation makes the bytes so far visible.
    async fn abandon(&self, key: &str, half: &[u8], precondition: Precondition) {
        if self.has(Mutation::HalfVisible) {
            let _ = self.state.write(key, Bytes::copy_from_slice(half), precondition).await;
        }
    }
}

fn is_claim(key: &str, body: &[u8]) -> bool {
    key.starts_with("ledger/") && matches!(serde_json::from_slice(body), Ok(Entry { state: State::Claimed(_), .. }))
}

/// Whether this is an entry that counts an unknown outcome.
fn counts_unknown(key: &str, body: &[u8]) -> bool {
    key.starts_with("ledger/")
        && !is_claim(key, body)
        && serde_json::from_slice(body).is_ok_and(|entry: Entry| entry.spent.unknown > 0)
}

#[async_trait]
impl Store for FaultyPorts {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let fault = self.begin(Call::Head, key).await;
        let answer = self.state.store.head(key).await?;
        self.answer_read(Call::Head, key, fault, answer).await
    }

    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        let fault = self.begin(Call::Open, key).await;
        let mut answer = self.state.store.open(key, version).await?;
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
        let fault = self.begin(Call::Put, key).await;
        if key.starts_with("ledger/") {
            let lost = matches!(fault, Some(Fault::After | Fault::OwnSuccess));
            self.ledger_answer_lost.store(lost, Ordering::Relaxed);
        }
        if self.has(Mutation::RecordedUncounted) && fault == Some(Fault::Before) && counts_unknown(key, &body) {
            self.state.oracle(|oracle| oracle.metric(MetricEvent::OutcomeUnknown));
        }
        self.write(Call::Put, key, body, precondition, fault).await
    }

    async fn put_stream(&self, key: &str, mut body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError> {
        let fault = self.begin(Call::PutStream, key).await;
        let mut whole = BytesMut::new();
        while let Some(chunk) = body.next().await {
            match chunk {
                Ok(chunk) if fault == Some(Fault::Break) => {
                    whole.extend_from_slice(&chunk[..chunk.len() / 2]);
                    self.abandon(key, &whole, precondition).await;
                    self.trace(Call::PutStream, key, "stream broke off");
                    return Err(StoreError::Unavailable { detail: "simulated: the upload broke off".into() });
                }
                Ok(chunk) => whole.extend_from_slice(&chunk),
                Err(error) => {
                    self.abandon(key, &whole, precondition).await;
                    self.trace(Call::PutStream, key, "its source failed");
                    return Err(error);
                }
            }
        }
        self.write(Call::PutStream, key, whole.freeze(), precondition, fault).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        let fault = self.begin(Call::List, prefix).await;
        let mut answer = self.state.store.list(prefix, after).await?;
        if self.has(Mutation::StaleList) {
            self.state.make_stale(prefix, &mut answer);
        }
        self.answer_read(Call::List, prefix, fault, answer).await
    }
}

impl MetricsRecorder for FaultyPorts {
    fn record(&self, event: MetricEvent) {
        self.state.trace_text(format_args!("{} records {event:?}", self.actor.name));
        let lost = self.ledger_answer_lost.load(Ordering::Relaxed);
        if self.has(Mutation::LostAnswerUnrecorded) && event == MetricEvent::OutcomeUnknown && lost {
            return;
        }
        self.state.oracle(|oracle| oracle.metric(event));
    }
}

#[async_trait]
impl Notifier for FaultyPorts {
    async fn publish(&self, notification: &Notification) -> Result<(), NotifyError> {
        let key = notification.job.as_str();
        let fault = self.begin(Call::Publish, key).await;
        let unsent = || Err(NotifyError::Unsent { detail: "simulated".into() });
        if fault == Some(Fault::Before) {
            self.trace(Call::Publish, key, "failed before");
            return unsent();
        }
        if !self.has(Mutation::NotificationsLost) {
            self.state.oracle(|oracle| oracle.notified(notification));
        }
        match fault {
            Some(Fault::Crash(CrashPoint::After)) => self.crash(Call::Publish, key, CrashPoint::After).await,
            Some(Fault::After) => {
                self.trace(Call::Publish, key, "failed after");
                unsent()
            }
            _ => {
                self.trace(Call::Publish, key, notification.status.as_str());
                Ok(())
            }
        }
    }
}
