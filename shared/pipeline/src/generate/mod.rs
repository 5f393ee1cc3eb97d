//! Messages in, results out: claim in the ledger, call the API, record the outcome, write the result.

pub mod archive;
pub mod breaker;
pub mod classify;
pub mod guardrail;
mod pace;
pub mod worker;

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::atomic::Ordering, time::Duration};

use futures::{FutureExt as _, future::join_all};
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    generate::{breaker::BreakerDecision, classify::Verdict, worker::Worker},
    ledger::{self, Asker, Claim, Entry, Failure, GivenUp, Limits, Outcome, Paid, Series, State, Step},
    model::{
        error_class::ErrorClass,
        etag::Etag,
        event::Fact,
        json, keys,
        message::RowMessage,
        result::{Completed, CompletedStatus, Failed, FailedStatus, RowResult},
    },
    ports::{ApiError, Delivery, Generated, Outgoing, Picture, Ports, Precondition, QueueError, StoreError},
    settings::{AccountPolicy, GenerateSettings},
    storage::{self, Current, Document},
};

/// What recording, archiving and writing a result may take after a call: an invocation must be longer than a call and this.
pub const AFTER_CALL: Duration = Duration::from_secs(30);
/// How much longer than a call a claim lives: what the writes around the call may take.
const LEASE_MARGIN: Duration = Duration::from_secs(60);
/// The longest a row waits for its pictures to be kept.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(120);
/// When a row looks again at a fingerprint that another row is calling for. Looking costs a queue message.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// The same in a process that has its queue in memory, where looking is free.
const LOOK_AGAIN_ALONE: Duration = Duration::from_secs(1);
/// When a message comes back after trouble that is not the row's.
const AFTER_TROUBLE: Duration = Duration::from_secs(30);
/// The first wait after a call that failed for a passing reason; doubles.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Tries at recording a paid outcome, beyond the store's own repeats: nothing is worth more.
const RECORD_TRIES: usize = 8;
/// How much of an error ends in a result, in bytes.
const MAX_ERROR_BYTES: usize = 2 * 1024;

/// Handles a batch, all messages at once, and returns the ids of those that must come back. One message's trouble, a
/// panic included, is its own. No call is started that cannot end before `deadline`.
pub async fn generate(
    ports: &Ports,
    settings: &GenerateSettings,
    worker: &Worker,
    batch: Vec<Delivery>,
    deadline: Timestamp,
) -> Vec<String> {
    let host = Host { ports, settings, worker, deadline };
    join_all(batch.into_iter().map(|delivery| host.deliver(delivery))).await.into_iter().flatten().collect()
}

/// What becomes of a message.
enum Fate {
    /// It may go: its result stands.
    Done,
    /// It must come back, after this long.
    Back(Duration),
}

/// What kept a message from being handled. None of it is the row's fault: the message comes back.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

#[derive(Clone, Copy)]
struct Host<'a> {
    ports: &'a Ports,
    settings: &'a GenerateSettings,
    worker: &'a Worker,
    deadline: Timestamp,
}

impl Host<'_> {
    /// The message's id if it must come back.
    async fn deliver(self, delivery: Delivery) -> Option<String> {
        // Of the highest level, so that it is there whatever level is asked for.
        let span = tracing::error_span!("message", job = Empty, row = Empty, sku = Empty);
        self.deliver_within(delivery).instrument(span).await
    }

    async fn deliver_within(self, delivery: Delivery) -> Option<String> {
        let handled = AssertUnwindSafe(self.handle(&delivery)).catch_unwind().await;
        let delay = match handled {
            Ok(Ok(Fate::Done)) => return None,
            Ok(Ok(Fate::Back(delay))) => {
                tracing::info!(message_id = delivery.id, seconds = delay.as_secs(), "the message comes back later");
                delay
            }
            Ok(Err(trouble)) => {
                tracing::warn!(message_id = delivery.id, error = %trouble, "the message comes back");
                AFTER_TROUBLE
            }
            Err(_) => {
                tracing::error!(message_id = delivery.id, "panicked; the message comes back");
                AFTER_TROUBLE
            }
        };
        if let Err(error) = self.ports.rows.delay(&delivery.receipt, delay + self.jitter(delay / 4)).await {
            tracing::warn!(message_id = delivery.id, %error, "the message comes back at the queue's own timeout");
        }
        Some(delivery.id)
    }

    async fn handle(self, delivery: &Delivery) -> Result<Fate, Trouble> {
        match RowMessage::decode(&delivery.body) {
            Ok(message) => {
                let span = Span::current();
                span.record("job", message.job.as_str()).record("row", message.row).record("sku", &message.sku);
                Row::new(self, &message).process().await
            }
            Err(poison) => {
                tracing::error!(message_id = delivery.id, error = %poison, "parked in the retry queue");
                let attributes = attributes("poison", ErrorClass::Row);
                self.ports.retry.send(&[Outgoing { body: delivery.body.clone(), attributes }]).await?;
                Ok(Fate::Done)
            }
        }
    }

    /// Time until the deadline.
    fn left(self) -> Duration {
        Duration::try_from(self.deadline.duration_since(self.ports.clock.now())).unwrap_or(Duration::ZERO)
    }

    /// Whether a call that begins after `wait` ends before the deadline.
    fn fits(self, wait: Duration) -> bool {
        wait.saturating_add(self.settings.request_timeout).saturating_add(AFTER_CALL) <= self.left()
    }

    /// Anything between nothing and `limit`.
    fn jitter(self, limit: Duration) -> Duration {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.ports.clock.random().checked_rem(nanos.saturating_add(1)).unwrap_or(0))
    }

    fn nonce(self) -> String {
        format!("{:016x}", self.ports.clock.random())
    }

    /// Waits for permission to call.
    async fn may_call(self) -> Result<Permit, Trouble> {
        loop {
            match self.may_call_now().await? {
                Permit::Not(wait) if self.fits(wait) => tokio::time::sleep(wait).await,
                permit => return Ok(permit),
            }
        }
    }

    /// The time that is left, the rate, the API's pauses, the breaker.
    async fn may_call_now(self) -> Result<Permit, Trouble> {
        if !self.fits(Duration::ZERO) {
            return Ok(Permit::Not(Duration::from_secs(1)));
        }
        if let Err(wait) = self.worker.pace.take() {
            return Ok(Permit::Not(wait));
        }
        let call_takes = self.settings.request_timeout + LEASE_MARGIN;
        Ok(match self.worker.breaker.decide(self.ports, call_takes).await? {
            BreakerDecision::Call => Permit::Call { probe: false },
            BreakerDecision::Probe => Permit::Call { probe: true },
            BreakerDecision::Suspend(wait) => Permit::Held(wait),
        })
    }
}

enum Permit {
    Call {
        /// The breaker is open, and this call tests it.
        probe: bool,
    },
    /// Not for this long.
    Not(Duration),
    /// The same, and nobody may, because the breaker is open.
    Held(Duration),
}

/// A live claim of ours.
struct Held {
    entry: Entry,
    etag: Etag,
    nonce: String,
}

/// Where the ledger stands, as far as this row knows.
type Known = Option<(Entry, Etag)>;

/// The ledger's entry; the error is an object that we must not touch, as the failure of this row.
type Looked = Result<Known, Failure>;

/// What became of a row that was taken for a new one.
#[expect(clippy::large_enum_variant, reason = "one at a time, for a moment, on the stack")]
enum Tried {
    /// It was not.
    Not,
    /// It is through.
    End(Fate),
    /// This stands in the ledger.
    Found(Looked),
}

/// What a step leads to.
#[expect(clippy::large_enum_variant, reason = "one at a time, for a moment, on the stack")]
enum Next {
    /// The row is through.
    End(Fate),
    /// Decide again about this.
    Decide(Known),
}

/// One row being handled.
struct Row<'a> {
    host: Host<'a>,
    message: &'a RowMessage,
    asker: Asker,
    ledger_key: String,
    result: Document<RowResult>,
    /// The result as it was read, or assumed absent.
    before: Current<RowResult>,
}

impl<'a> Row<'a> {
    fn new(host: Host<'a>, message: &'a RowMessage) -> Self {
        Self {
            host,
            message,
            asker: Asker {
                series: Series { job: message.job.clone(), round: message.round },
                row: message.row,
                worker: host.worker.id.clone(),
            },
            ledger_key: keys::ledger(&message.fingerprint),
            result: Document::line(keys::result(&message.job, message.row, &message.sku)),
            before: Current::absent(),
        }
    }

    async fn process(mut self) -> Result<Fate, Trouble> {
        let known = match self.try_as_new().await? {
            Tried::End(fate) => return Ok(fate),
            Tried::Found(known) => {
                self.before = self.result.read_or_discard(self.host.ports).await?;
                known
            }
            Tried::Not => {
                let result = self.result.read_or_discard(self.host.ports);
                let (before, known) = futures::try_join!(result, self.read_ledger())?;
                self.before = before;
                known
            }
        };
        self.host.worker.new_rows.store(matches!(known, Ok(None)), Ordering::Relaxed);
        if self.is_settled() {
            tracing::info!("settled before");
            return Ok(Fate::Done);
        }
        let mut next = self.decide_about(known).await?;
        loop {
            match next {
                Next::End(fate) => return Ok(fate),
                Next::Decide(known) => next = self.step(known).await?,
            }
        }
    }

    /// Claims the row and calls before anything is read: the store refuses the claim where there is a ledger entry, and what
    /// has been paid for has one. Not tried where it would probably fail: rows that are not new come together, when a
    /// catalog is dropped again or a queue delivers twice, and may need no call. Nor with the breaker open: whoever finds
    /// then that there is nothing to call for would have used up the probe.
    async fn try_as_new(&self) -> Result<Tried, Trouble> {
        let Host { ports, worker, .. } = self.host;
        let RowMessage { job, round, fingerprint, .. } = self.message;
        if *round > 0 || !worker.new_rows.load(Ordering::Relaxed) {
            return Ok(Tried::Not);
        }
        if worker.breaker.is_open(ports).await? || worker.guardrail.stopped(ports, job, *round).await?.is_some() {
            return Ok(Tried::Not);
        }
        let Permit::Call { probe } = self.host.may_call_now().await? else { return Ok(Tried::Not) };
        let entry = Entry::new(fingerprint.clone(), self.asker.series.clone());
        Ok(match self.claim(entry, None, false).await? {
            Err(known) => Tried::Found(known),
            Ok(held) => match self.call(held, probe).await? {
                Next::End(fate) => Tried::End(fate),
                Next::Decide(known) => Tried::Found(Ok(known)),
            },
        })
    }

    /// Whether this delivery has nothing left to do: the row is completed, or has failed for this round, or for good.
    fn is_settled(&self) -> bool {
        match &self.before.value {
            Some(RowResult::Completed(_)) => true,
            Some(RowResult::Failed(failed)) => {
                failed.round >= self.message.round || failed.error_class == ErrorClass::Row
            }
            None => false,
        }
    }

    async fn read_ledger(&self) -> Result<Looked, StoreError> {
        let Some(seen) = storage::read(self.host.ports, &self.ledger_key).await? else { return Ok(Ok(None)) };
        let problem = match ledger::read(&seen.value) {
            Ok(entry) if entry.fingerprint != self.message.fingerprint => "another fingerprint".to_owned(),
            Ok(entry) => return Ok(Ok(Some((entry, seen.etag)))),
            Err(problem) => problem,
        };
        Ok(Err(Failure {
            row: self.message.row,
            error: format!(
                "{} is not a ledger entry that this version understands ({problem}); nothing was called. Move the object \
                 away or upgrade packshot, then redrive",
                self.ledger_key
            ),
            error_code: "ledger_unreadable".into(),
            error_class: ErrorClass::Unknown,
            http_status: None,
            latency_ms: None,
            failed_at: self.host.ports.clock.now(),
        }))
    }

    /// Reads the ledger after a write that lost, for the next decision.
    async fn look_again(&self) -> Result<Next, Trouble> {
        self.decide_about(self.read_ledger().await?).await
    }

    async fn decide_about(&self, known: Looked) -> Result<Next, Trouble> {
        Ok(match known {
            Ok(known) => Next::Decide(known),
            Err(foreign) => Next::End(self.fail(&self.uncalled(foreign)).await?),
        })
    }

    async fn step(&self, known: Known) -> Result<Next, Trouble> {
        let settings = self.host.settings;
        let limits = Limits {
            unknown_retries: settings.unknown_outcome_retries,
            reuse: settings.reuse,
            sole_worker: settings.sole_worker,
        };
        let (entry, etag) = known.unzip();
        // Whoever held it has died, if it is ours to decide about: the next write counts that.
        let died = matches!(entry, Some(Entry { state: State::Claimed(_), .. }));
        let now = self.host.ports.clock.now();
        match ledger::decide(entry.as_ref(), &self.message.fingerprint, &self.asker, now, &limits) {
            Step::Reuse(Paid { outcome, calls, unknown }) => {
                self.complete(outcome, calls, unknown).await.map(Next::End)
            }
            Step::Share(given_up) => self.fail(&given_up).await.map(Next::End),
            Step::Wait(wait) => {
                let look_again = if settings.sole_worker { LOOK_AGAIN_ALONE } else { LOOK_AGAIN };
                Ok(Next::End(Fate::Back(wait.min(look_again))))
            }
            Step::GiveUp(entry) => self.give_up(entry, etag, died).await,
            Step::Claim(entry) => self.claim_and_call(entry, etag, died).await,
        }
    }

    async fn claim_and_call(&self, entry: Entry, etag: Option<Etag>, died: bool) -> Result<Next, Trouble> {
        let Host { ports, worker, .. } = self.host;
        if let Some(abort) = worker.guardrail.stopped(ports, &self.message.job, self.message.round).await? {
            let failure =
                self.failure("aborted", ErrorClass::Aborted, format!("the job was stopped: {}", abort.reason));
            return self.fail(&self.uncalled(failure)).await.map(Next::End);
        }
        let probe = match self.host.may_call().await? {
            Permit::Call { probe } => probe,
            Permit::Not(wait) => return Ok(Next::End(Fate::Back(wait))),
            Permit::Held(wait) => {
                ports.journal.note(Fact::Held);
                return Ok(Next::End(Fate::Back(wait)));
            }
        };
        match self.claim(entry, etag, died).await? {
            Ok(held) => self.call(held, probe).await,
            Err(known) => self.decide_about(known).await,
        }
    }

    /// Writes a claim. The inner error is what stands there instead: somebody else was quicker, or the write took so long
    /// that the call would outlive it.
    async fn claim(&self, mut entry: Entry, etag: Option<Etag>, died: bool) -> Result<Result<Held, Looked>, Trouble> {
        let Host { ports, settings, worker, .. } = self.host;
        let (nonce, at) = (self.host.nonce(), ports.clock.now());
        let until = at.checked_add(settings.request_timeout + LEASE_MARGIN).unwrap_or(Timestamp::MAX);
        entry.calls += 1;
        entry.state = State::Claimed(Claim { nonce: nonce.clone(), worker: worker.id.clone(), at, until });
        let body = json::to_vec(&entry).into();
        let etag = match storage::write(ports, &self.ledger_key, body, Precondition::unchanged(etag)).await {
            Ok(etag) => etag,
            // A request that was repeated below us can meet its own success: the nonce tells.
            Err(StoreError::Conflict { .. } | StoreError::Unknown { .. }) => match self.read_ledger().await? {
                Ok(Some((current, etag))) if current.is_claimed_by(&nonce) => etag,
                known => return Ok(Err(known)),
            },
            Err(error) => return Err(error.into()),
        };
        if died {
            ports.journal.note(Fact::OutcomeUnknown);
            tracing::warn!("another worker died during a call, which may have been billed");
        }
        let held = Held { entry, etag, nonce };
        let in_time = ports.clock.now().checked_add(settings.request_timeout).is_ok_and(|end| end < until);
        if in_time && self.host.fits(Duration::ZERO) {
            return Ok(Ok(held));
        }
        self.release(held, |entry| entry.calls -= 1).await?;
        Ok(Err(self.read_ledger().await?))
    }

    async fn call(&self, held: Held, probe: bool) -> Result<Next, Trouble> {
        let Host { ports, settings, worker, .. } = self.host;
        let began = Instant::now();
        let call = ports.images.generate(&self.message.request, self.message.fingerprint.as_str());
        let answer = tokio::time::timeout(settings.request_timeout, call).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", settings.request_timeout.as_secs());
            Err(ApiError::Unknown { code: "timeout", status: None, detail })
        });
        let took = began.elapsed();
        let latency_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let pictures = answer.as_ref().map_or(0, |generated| generated.pictures.len());
        ports.journal.note(Fact::Called { took, retry: held.entry.calls > 1, pictures });
        let error = match answer {
            Ok(generated) => {
                worker.pace.flowing();
                let ended = self.record(held, generated, latency_ms).await?;
                if probe {
                    worker.breaker.close(ports).await?;
                }
                return Ok(Next::End(ended));
            }
            Err(error) => error,
        };
        let verdict = classify::verdict(&error);
        if !matches!(verdict, Verdict::Throttled(_)) {
            worker.pace.flowing();
        }
        let fail = |class| self.api_failure(&error, class, latency_ms);
        match verdict {
            Verdict::Row => {
                if probe {
                    worker.breaker.close(ports).await?;
                }
                self.conclude(held, |_| (), fail(ErrorClass::Row)).await
            }
            Verdict::Transient(after) => {
                let failures = held.entry.spent.failures + 1;
                let count = |entry: &mut Entry| entry.spent.failures = failures;
                if failures > settings.retries {
                    return self.conclude(held, count, fail(ErrorClass::Transient)).await;
                }
                let wait = self.backoff(failures, after);
                self.release_and_wait(held, count, wait).await
            }
            Verdict::Unknown => {
                ports.journal.note(Fact::OutcomeUnknown);
                tracing::warn!(code = shorten_code(&error), "the call may have been billed");
                let unknown = held.entry.spent.unknown + 1;
                if unknown > settings.unknown_outcome_retries {
                    return self.conclude(held, Entry::count_unknown, self.unknown_failure(&error, latency_ms)).await;
                }
                let wait = self.backoff(unknown, None);
                self.release_and_wait(held, Entry::count_unknown, wait).await
            }
            Verdict::Throttled(after) => {
                ports.journal.note(Fact::Throttled);
                worker.pace.throttled(after, settings.retry_after_ceiling);
                self.release(held, |entry| entry.calls -= 1).await
            }
            Verdict::Account if settings.account_errors == AccountPolicy::Fail => {
                self.conclude(held, |_| (), fail(ErrorClass::Account)).await
            }
            Verdict::Account => {
                ports.journal.note(Fact::Held);
                // The breaker first: if this worker dies here, the claim dies with it, but nobody burns on.
                let code = shorten_code(&error);
                tracing::warn!(code, "the account cannot pay, or its key is wrong; calls are held back");
                let reason = shorten(error.to_string());
                let hold = worker.breaker.trip(ports, probe, &code, &reason).await;
                match self.release(held, |entry| entry.calls -= 1).await? {
                    Next::Decide(_) => Ok(Next::End(Fate::Back(hold?))),
                    end @ Next::End(_) => Ok(end),
                }
            }
        }
    }

    /// Full jitter, but never before the API's own word.
    fn backoff(&self, failures: u32, after: Option<Duration>) -> Duration {
        let limit = FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(MAX_BACKOFF);
        let after = after.unwrap_or_default().min(self.host.settings.retry_after_ceiling);
        self.host.jitter(limit).max(after)
    }

    async fn release_and_wait(
        &self,
        held: Held,
        count: impl FnOnce(&mut Entry),
        wait: Duration,
    ) -> Result<Next, Trouble> {
        let next = self.release(held, count).await?;
        if matches!(next, Next::End(_)) {
            return Ok(next);
        }
        if !self.host.fits(wait) {
            return Ok(Next::End(Fate::Back(wait)));
        }
        tokio::time::sleep(wait).await;
        // Others may have worked on it meanwhile.
        self.look_again().await
    }

    /// Gives a claim back with its counters, so that a death from here on is not an unknown outcome.
    async fn release(&self, held: Held, count: impl FnOnce(&mut Entry)) -> Result<Next, Trouble> {
        let mut next = held.entry.clone();
        count(&mut next);
        next.state = State::Released;
        match self.replace(held, &mut next).await? {
            Some(etag) => Ok(Next::Decide(Some((next, etag)))),
            None => self.look_again().await,
        }
    }

    /// Ends this series with a failure.
    async fn conclude(&self, held: Held, count: impl FnOnce(&mut Entry), failure: Failure) -> Result<Next, Trouble> {
        let mut next = held.entry.clone();
        count(&mut next);
        next.state = State::Failed(failure.clone());
        match self.replace(held, &mut next).await? {
            Some(_) => self.fail(&given_up(failure, &next)).await.map(Next::End),
            None => self.look_again().await,
        }
    }

    /// Writes over our own claim; `None` where it is no longer ours.
    async fn replace(&self, held: Held, next: &mut Entry) -> Result<Option<Etag>, Trouble> {
        let mut etag = held.etag;
        for _ in 0..RECORD_TRIES {
            let body = json::to_vec(next).into();
            match storage::write(self.host.ports, &self.ledger_key, body, Precondition::Matches(etag)).await {
                Ok(etag) => return Ok(Some(etag)),
                Err(StoreError::Conflict { .. } | StoreError::Unknown { .. }) => match self.read_ledger().await? {
                    Ok(Some((current, now))) if current.is_claimed_by(&held.nonce) => {
                        // A worker of another job that we took for dead may have noted its outcome there.
                        next.others = current.others;
                        etag = now;
                    }
                    Ok(Some((current, now))) if current == *next => return Ok(Some(now)),
                    _ => return Ok(None),
                },
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Unavailable { detail: format!("no answer to writes of {}", self.ledger_key) }.into())
    }

    /// A dead claim was one too many.
    async fn give_up(&self, mut entry: Entry, etag: Option<Etag>, died: bool) -> Result<Next, Trouble> {
        let failure = self.failure(
            "outcome_unknown",
            ErrorClass::Unknown,
            "a worker died during the call, which may have been billed; redrive the row to call again".into(),
        );
        entry.state = State::Failed(failure.clone());
        let body = json::to_vec(&entry).into();
        match storage::write(self.host.ports, &self.ledger_key, body, Precondition::unchanged(etag)).await {
            Ok(_) => {
                if died {
                    self.host.ports.journal.note(Fact::OutcomeUnknown);
                }
                self.fail(&given_up(failure, &entry)).await.map(Next::End)
            }
            Err(StoreError::Conflict { .. } | StoreError::Unknown { .. }) => self.look_again().await,
            Err(error) => Err(error.into()),
        }
    }

    /// Records a paid outcome, whatever happened to the claim meanwhile, and completes the row.
    async fn record(&self, held: Held, generated: Generated, latency_ms: u64) -> Result<Fate, Trouble> {
        let ports = self.host.ports;
        let completed_at = ports.clock.now();
        let (urls, inline): (Vec<_>, Vec<_>) =
            generated.pictures.iter().cloned().partition(|picture| matches!(picture, Picture::Url(_)));
        // These exist nowhere but in this answer; those behind addresses can be fetched again after a death.
        let inline: Vec<_> = (urls.len() + 1..).zip(inline).collect();
        let kept =
            archive::keep(ports, &self.host.worker.pictures, &self.message.catalog, &self.message.sku, &inline).await;
        let outcome = Outcome {
            job: self.message.job.clone(),
            row: self.message.row,
            request_id: generated.request_id,
            model_actual: generated.model_actual,
            image_count: generated.pictures.len(),
            image_urls: generated
                .pictures
                .into_iter()
                .filter_map(|picture| match picture {
                    Picture::Url(url) => Some(url),
                    Picture::Inline(_) => None,
                })
                .collect(),
            assets: kept.assets,
            archive_error: kept.error,
            latency_ms,
            completed_at,
        };
        let (calls, unknown) = (held.entry.calls, held.entry.unknown);
        match self.record_outcome(held, &outcome).await {
            Ok(Paid { outcome, calls, unknown }) => self.complete(outcome, calls, unknown).await,
            // The ledger cannot be written; the result still can, and a completed result is never called for again.
            Err(error) => {
                let fate = self.complete(outcome, calls, unknown).await?;
                tracing::warn!(%error, fingerprint = %self.message.fingerprint, "paid for, but not in the ledger");
                Ok(fate)
            }
        }
    }

    /// Returns the outcome that the ledger holds in the end, with its counters.
    async fn record_outcome(&self, held: Held, outcome: &Outcome) -> Result<Paid, StoreError> {
        let ports = self.host.ports;
        let mut next = held.entry.with_outcome(&self.asker.series, outcome.clone());
        let mut precondition = Precondition::Matches(held.etag);
        let mut last = StoreError::Unavailable { detail: "not tried".into() };
        for tried in 0..RECORD_TRIES {
            match storage::write(ports, &self.ledger_key, json::to_vec(&next).into(), precondition.clone()).await {
                Ok(_) => return Ok(Paid { outcome: outcome.clone(), calls: next.calls, unknown: next.unknown }),
                Err(error @ StoreError::Refused { .. }) => return Err(error),
                Err(StoreError::Unavailable { detail }) => {
                    last = StoreError::Unavailable { detail };
                    tokio::time::sleep(FIRST_BACKOFF * (1 << tried.min(4))).await;
                }
                Err(error) => last = error,
            }
            match self.read_ledger().await {
                Ok(Ok(Some((current, etag)))) => {
                    let (job, now) = (&self.message.job, ports.clock.now());
                    if let Some(theirs) = current.outcome_for(job, now, self.host.settings.reuse) {
                        return Ok(theirs);
                    }
                    // Whoever took us for dead has counted us; what we know is better than what they are about to learn.
                    next = current.with_outcome(&self.asker.series, outcome.clone());
                    precondition = Precondition::Matches(etag);
                }
                Ok(Ok(None)) => precondition = Precondition::Absent,
                Ok(Err(foreign)) => return Err(StoreError::Refused { detail: foreign.error }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Writes the completed result of a paid outcome.
    async fn complete(&self, mut outcome: Outcome, calls: u32, unknown: u32) -> Result<Fate, Trouble> {
        let Host { ports, settings, worker, .. } = self.host;
        let paid_here = outcome.job == self.message.job && outcome.row == self.message.row;
        let urls = outcome.image_urls.len();
        if settings.archive && outcome.assets.iter().filter(|asset| asset.n <= urls).count() < urls {
            self.keep_pictures(&mut outcome, paid_here).await;
        }
        let (request_id, archive_error) = (outcome.request_id.clone(), outcome.archive_error.is_some());
        let result = RowResult::Completed(Box::new(Completed {
            sku: self.message.sku.clone(),
            status: CompletedStatus::Completed,
            image_count: outcome.image_count,
            image_urls: outcome.image_urls,
            request_id: outcome.request_id,
            model_actual: outcome.model_actual,
            row: self.message.row,
            job: self.message.job.clone(),
            fingerprint: self.message.fingerprint.clone(),
            attempts: if paid_here { calls } else { 0 },
            reused: !paid_here,
            model: self.message.request.model.clone(),
            latency_ms: outcome.latency_ms,
            completed_at: outcome.completed_at,
            short: outcome.image_count < usize::from(self.message.request.n),
            assets: outcome.assets,
            unknown_outcomes: if paid_here { unknown } else { 0 },
            archive_error: outcome.archive_error,
            image_url: Some(self.message.request.image_url.clone()),
            prompt: Some(self.message.request.prompt.clone()),
        }));
        let change =
            |current: Option<&RowResult>| (!matches!(current, Some(RowResult::Completed(_)))).then(|| result.clone());
        self.result.update(ports, self.before.clone(), change).await?;
        ports.journal.note(Fact::RowCompleted { reused: !paid_here, archive_error });
        tracing::info!(api_request_id = request_id, reused = !paid_here, archive_error, "completed");
        if paid_here {
            worker.guardrail.ended(ports, &self.message.job, self.message.round, false).await?;
        }
        Ok(Fate::Done)
    }

    /// Keeps the pictures behind the addresses, and notes them in the ledger for rows that reuse the outcome.
    async fn keep_pictures(&self, outcome: &mut Outcome, paid_here: bool) {
        let Host { ports, worker, .. } = self.host;
        let urls = outcome.image_urls.iter().cloned().zip(1..).map(|(url, n)| (n, Picture::Url(url)));
        let pictures: Vec<_> = urls.collect();
        let keep = archive::keep(ports, &worker.pictures, &self.message.catalog, &self.message.sku, &pictures);
        match tokio::time::timeout(ARCHIVE_TIMEOUT.min(self.host.left().saturating_sub(AFTER_CALL / 2)), keep).await {
            Ok(kept) => {
                let urls = outcome.image_urls.len();
                outcome.assets.retain(|asset| asset.n > urls);
                // What came inline cannot be tried again, so what was said about it still holds.
                let lost = outcome.archive_error.take().filter(|_| urls + outcome.assets.len() < outcome.image_count);
                outcome.archive_error = lost.into_iter().chain(kept.error).reduce(|a, b| format!("{a}; {b}"));
                outcome.assets.splice(0..0, kept.assets);
            }
            Err(_) => outcome.archive_error = Some("the pictures could not be fetched in time".into()),
        }
        if !paid_here || outcome.assets.is_empty() {
            return;
        }
        // Only saves another row the fetching, so one try is enough and losing it is nothing to report.
        if let Ok(Ok(Some((mut entry, etag)))) = self.read_ledger().await
            && matches!(&entry.state, State::Completed(paid) if paid.request_id == outcome.request_id)
        {
            entry.state = State::Completed(outcome.clone());
            let noted =
                ports.store.put(&self.ledger_key, json::to_vec(&entry).into(), Precondition::Matches(etag)).await;
            tracing::debug!(?noted, "kept pictures noted in the ledger");
        }
    }

    /// Writes the failed result, after the row has its place in the retry queue, so that the result vouches for both.
    async fn fail(&self, given_up: &GivenUp) -> Result<Fate, Trouble> {
        let Host { ports, worker, .. } = self.host;
        let (message, failure) = (self.message, &given_up.failure);
        // A failure of a later round is shared with what that round was asked for: only the next one calls again.
        let round = given_up.round.max(message.round);
        if failure.error_class.may_heal() {
            let again = RowMessage { round: round + 1, ..message.clone() };
            let attributes = attributes(&failure.error_code, failure.error_class);
            ports.retry.send(&[Outgoing { body: again.encode(), attributes }]).await?;
        }
        let reused = failure.row != message.row;
        let (calls, unknown) = if reused { (0, 0) } else { (given_up.calls, given_up.unknown) };
        let result = RowResult::Failed(Box::new(Failed {
            sku: message.sku.clone(),
            status: FailedStatus::Failed,
            error: failure.error.clone(),
            row: message.row,
            job: message.job.clone(),
            fingerprint: Some(message.fingerprint.clone()),
            attempts: calls,
            reused,
            model: Some(message.request.model.clone()),
            latency_ms: failure.latency_ms,
            failed_at: failure.failed_at,
            error_code: failure.error_code.clone(),
            error_class: failure.error_class,
            http_status: failure.http_status,
            line: message.line,
            unknown_outcomes: unknown,
            round,
            input: message.input.clone(),
        }));
        let change = |current: Option<&RowResult>| match current {
            Some(RowResult::Completed(_)) => None,
            Some(RowResult::Failed(failed)) if failed.round >= round => None,
            _ => Some(result.clone()),
        };
        self.result.update(ports, self.before.clone(), change).await?;
        ports.journal.note(Fact::RowFailed(failure.error_class));
        tracing::info!(code = failure.error_code, class = failure.error_class.as_str(), round, "failed");
        if calls > 0 {
            worker.guardrail.ended(ports, &message.job, round, true).await?;
        }
        Ok(Fate::Done)
    }

    /// A failure before any call of this round.
    fn uncalled(&self, failure: Failure) -> GivenUp {
        GivenUp { failure, round: self.message.round, calls: 0, unknown: 0 }
    }

    fn failure(&self, code: &str, class: ErrorClass, error: String) -> Failure {
        Failure {
            row: self.message.row,
            error,
            error_code: code.to_owned(),
            error_class: class,
            http_status: None,
            latency_ms: None,
            failed_at: self.host.ports.clock.now(),
        }
    }

    fn api_failure(&self, error: &ApiError, class: ErrorClass, latency_ms: u64) -> Failure {
        let http_status = match error {
            ApiError::Answered { status, .. } => Some(*status),
            ApiError::Unknown { status, .. } => *status,
            ApiError::NotSent { .. } | ApiError::Misconfigured { .. } => None,
        };
        Failure {
            http_status,
            latency_ms: Some(latency_ms),
            ..self.failure(&shorten_code(error), class, shorten(error.to_string()))
        }
    }

    /// An outcome that stays unknown; what came last is told in the sentence.
    fn unknown_failure(&self, error: &ApiError, latency_ms: u64) -> Failure {
        let last = self.api_failure(error, ErrorClass::Unknown, latency_ms);
        let text = format!("{} (the call may have been billed; redrive the row to call again)", last.error);
        // An answer that is no picture is known to be one; only silence leaves the outcome unknown.
        let code = if last.http_status.is_some() { last.error_code } else { "outcome_unknown".into() };
        Failure { error: text, error_code: code, ..last }
    }
}

fn given_up(failure: Failure, entry: &Entry) -> GivenUp {
    GivenUp { failure, round: entry.series.round, calls: entry.calls, unknown: entry.unknown }
}

fn attributes(code: &str, class: ErrorClass) -> BTreeMap<&'static str, String> {
    let class = class.as_str().to_owned();
    // SQS refuses these characters, and an empty value.
    let mut code: String = code.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')).collect();
    if code.is_empty() {
        code = "unnamed".to_owned();
    }
    BTreeMap::from([("error_code", code), ("error_class", class)])
}

/// A word; but it is the API that chooses it.
fn shorten_code(error: &ApiError) -> String {
    shorten(classify::error_code(error))
}

/// Cuts a text at a character boundary.
fn shorten(mut text: String) -> String {
    if text.len() > MAX_ERROR_BYTES {
        text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES - '…'.len_utf8()));
        text.push('…');
    }
    text
}
