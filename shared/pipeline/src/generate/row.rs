//! One row from its message to its result: claim, call, record, complete.
//!
//! A row alternates between reading the ledger and the step that [`ledger::decide`] derives from it, until a step ends the row.

use std::{ops::ControlFlow, sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::{
    archive,
    classify::{self, Verdict},
    disposition::{Disposition, GenerateError},
    failure,
    fingerprint_ledger::{ActiveClaim, ClaimOutcome, FingerprintLedger, LedgerRead, WriteOutcome},
    invocation::{Admission, Invocation},
    row_result::RowResultFile,
};
use crate::{
    ledger::{self, Decision, Entry, Failure, Limits, Outcome, PaidOutcome, State},
    model::{error_class::ErrorClass, etag::Etag, event::MetricEvent, message::RowMessage, text::shorten},
    ports::{ApiError, Generated, GeneratedImage},
    settings::AccountPolicy,
    storage::Versioned,
};

/// When a row reads a fingerprint again that another row is calling for. Each read costs a delivery of the message.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// The same in a process that has its queue in memory, where a delivery costs nothing.
const LOOK_AGAIN_ALONE: Duration = Duration::from_secs(1);
/// The first wait after a call that failed with a transient error; doubles.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Either the row has ended, or this state of the ledger decides the next step.
type Progress = ControlFlow<Disposition, LedgerRead>;

/// Handles one row.
pub(super) struct RowTask<'a> {
    invocation: Invocation<'a>,
    message: &'a RowMessage,
    ledger: FingerprintLedger<'a>,
    result: RowResultFile<'a>,
}

impl<'a> RowTask<'a> {
    pub(super) fn new(invocation: Invocation<'a>, message: &'a RowMessage) -> Self {
        let (ledger, result) = (FingerprintLedger::new(invocation, message), RowResultFile::new(invocation, message));
        Self { invocation, message, ledger, result }
    }

    /// Runs the row to its end, or to the point where its message must come back.
    pub(super) async fn process(mut self) -> Result<Disposition, GenerateError> {
        let (existing, mut read) = match self.first_attempt().await? {
            Some(ControlFlow::Break(disposition)) => return Ok(disposition),
            Some(ControlFlow::Continue(read)) => (self.result.read().await?, read),
            None => futures::try_join!(self.result.read(), self.ledger.read())?,
        };
        self.result.remember(existing);
        self.invocation.worker.new_rows.store(matches!(read, LedgerRead::Entry(None)), Ordering::Relaxed);
        if self.result.is_settled() {
            tracing::info!("settled before");
            return Ok(Disposition::Ack);
        }
        loop {
            match self.step(read).await? {
                ControlFlow::Break(disposition) => return Ok(disposition),
                ControlFlow::Continue(next) => read = next,
            }
        }
    }

    /// Claims the fingerprint and calls the API before anything is read, which saves two reads for a new row. It is safe: the
    /// store refuses the claim if the ledger has an entry, and whatever has been paid for has one. Returns `None` if nothing
    /// was attempted, because the claim would probably fail. Rows that are not new come together, when a catalog is uploaded
    /// again or a queue delivers twice, and may need no call. With the breaker open nothing is attempted either, because a row
    /// that turns out to need no call would have used up the probe.
    async fn first_attempt(&self) -> Result<Option<Progress>, GenerateError> {
        let Invocation { ports, worker, .. } = self.invocation;
        let RowMessage { job, round, .. } = self.message;
        if *round > 0 || !worker.new_rows.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if worker.breaker.is_open(ports).await? || worker.guardrail.stopped(ports, job, *round).await?.is_some() {
            return Ok(None);
        }
        let Admission::Call { probe } = self.invocation.admit_now().await? else { return Ok(None) };
        Ok(Some(match self.ledger.claim(self.ledger.new_entry(), None, false).await? {
            ClaimOutcome::NotClaimed(read) => ControlFlow::Continue(read),
            ClaimOutcome::Claimed(active) => self.call(active, probe).await?,
        }))
    }

    /// Takes the step that the ledger's entry requires.
    async fn step(&self, read: LedgerRead) -> Result<Progress, GenerateError> {
        let versioned = match read {
            LedgerRead::Entry(versioned) => versioned,
            LedgerRead::Unreadable(failure) => return self.fail_uncalled(failure).await,
        };
        let settings = self.invocation.settings;
        let limits = Limits {
            unknown_retries: settings.unknown_outcome_retries,
            reuse: settings.reuse,
            sole_worker: settings.sole_worker,
        };
        let (entry, etag) = versioned.map(|Versioned { value, etag }| (value, etag)).unzip();
        // If this row may decide about a claimed entry, the claiming worker has died: the next write counts its call.
        let died = matches!(entry, Some(Entry { state: State::Claimed(_), .. }));
        let now = self.invocation.ports.clock.now();
        match ledger::decide(entry.as_ref(), &self.message.fingerprint, self.ledger.requester(), now, &limits) {
            Decision::Reuse(paid) => self.result.complete(&self.ledger, paid).await.map(ControlFlow::Break),
            Decision::Share(failure) => self.result.fail(&failure).await.map(ControlFlow::Break),
            Decision::Wait(wait) => {
                let look_again = if settings.sole_worker { LOOK_AGAIN_ALONE } else { LOOK_AGAIN };
                Ok(ControlFlow::Break(Disposition::RetryAfter(wait.min(look_again))))
            }
            Decision::GiveUp(entry) => self.give_up(entry, etag, died).await,
            Decision::Claim(entry) => self.claim_and_call(entry, etag, died).await,
        }
    }

    /// Waits for admission, claims the fingerprint and calls the API.
    async fn claim_and_call(&self, entry: Entry, etag: Option<Etag>, died: bool) -> Result<Progress, GenerateError> {
        let Invocation { ports, worker, .. } = self.invocation;
        if let Some(abort) = worker.guardrail.stopped(ports, &self.message.job, self.message.round).await? {
            let error = format!("the job was stopped: {}", abort.reason);
            return self.fail_uncalled(self.own_failure("aborted", ErrorClass::Aborted, error)).await;
        }
        let probe = match self.invocation.admit().await? {
            Admission::Call { probe } => probe,
            Admission::Later(wait) => return Ok(ControlFlow::Break(Disposition::RetryAfter(wait))),
            Admission::BreakerOpen(wait) => {
                ports.metrics.record(MetricEvent::RowSuspended);
                return Ok(ControlFlow::Break(Disposition::RetryAfter(wait)));
            }
        };
        match self.ledger.claim(entry, etag, died).await? {
            ClaimOutcome::Claimed(active) => self.call(active, probe).await,
            ClaimOutcome::NotClaimed(read) => Ok(ControlFlow::Continue(read)),
        }
    }

    /// Calls the API once and handles its answer.
    async fn call(&self, active: ActiveClaim, probe: bool) -> Result<Progress, GenerateError> {
        let Invocation { ports, settings, worker, .. } = self.invocation;
        let began = Instant::now();
        let call = ports.images.generate(&self.message.request, self.message.fingerprint.as_str());
        let answer = tokio::time::timeout(settings.request_timeout, call).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", settings.request_timeout.as_secs());
            Err(ApiError::Unknown { code: "timeout", status: None, detail })
        });
        let took = began.elapsed();
        let latency_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let images = answer.as_ref().map_or(0, |generated| generated.images.len());
        ports.metrics.record(MetricEvent::Called { took, retry: active.entry.calls > 1, images });
        let verdict = answer.as_ref().err().map(classify::verdict);
        if !matches!(verdict, Some(Verdict::Throttled(_))) {
            worker.rate_limit.reset_backoff();
        }
        match answer {
            Ok(generated) => {
                let disposition = self.record(active, generated, latency_ms).await?;
                if probe {
                    worker.breaker.close(ports).await?;
                }
                Ok(ControlFlow::Break(disposition))
            }
            Err(error) => self.after_failed_call(active, &error, latency_ms, probe).await,
        }
    }

    /// Retries, fails or suspends, as the classification of the error requires.
    async fn after_failed_call(
        &self,
        active: ActiveClaim,
        error: &ApiError,
        latency_ms: u64,
        probe: bool,
    ) -> Result<Progress, GenerateError> {
        let Invocation { ports, settings, worker, .. } = self.invocation;
        let fail = |class| failure::of_call(self.message.row, ports.clock.now(), error, class, latency_ms);
        match classify::verdict(error) {
            Verdict::Row => {
                if probe {
                    worker.breaker.close(ports).await?;
                }
                self.conclude(active, |_| (), fail(ErrorClass::Row)).await
            }
            Verdict::Transient(after) => {
                let failures = active.entry.spent.failures + 1;
                let count = |entry: &mut Entry| entry.spent.failures = failures;
                if failures > settings.retries {
                    return self.conclude(active, count, fail(ErrorClass::Transient)).await;
                }
                self.release_and_wait(active, count, self.backoff(failures, after)).await
            }
            Verdict::Unknown => {
                tracing::warn!(code = failure::code_of(error), "the call may have been billed");
                let unknown = active.entry.spent.unknown + 1;
                if unknown > settings.unknown_outcome_retries {
                    let failure = failure::of_unknown_outcome(self.message.row, ports.clock.now(), error, latency_ms);
                    return self.conclude(active, Entry::count_unknown, failure).await;
                }
                self.release_and_wait(active, Entry::count_unknown, self.backoff(unknown, None)).await
            }
            Verdict::Throttled(after) => {
                ports.metrics.record(MetricEvent::Throttled);
                worker.rate_limit.pause(after, settings.retry_after_ceiling);
                self.ledger.release(active, |entry| entry.calls -= 1).await.map(ControlFlow::Continue)
            }
            Verdict::Account if settings.account_errors == AccountPolicy::Fail => {
                self.conclude(active, |_| (), fail(ErrorClass::Account)).await
            }
            Verdict::Account => {
                ports.metrics.record(MetricEvent::RowSuspended);
                // The breaker first: if this worker dies here, its claim ends with the lease, but no other worker goes on calling.
                let code = failure::code_of(error);
                tracing::warn!(code, "the account cannot pay, or its key is wrong; calls are held back");
                let reason = shorten(error.to_string(), failure::MAX_ERROR_BYTES);
                let hold = worker.breaker.trip(ports, probe, &code, &reason).await;
                match self.ledger.release(active, |entry| entry.calls -= 1).await? {
                    LedgerRead::Entry(_) => Ok(ControlFlow::Break(Disposition::RetryAfter(hold?))),
                    unreadable @ LedgerRead::Unreadable(_) => Ok(ControlFlow::Continue(unreadable)),
                }
            }
        }
    }

    /// A backoff with full jitter, but never shorter than the API's `Retry-After`.
    fn backoff(&self, failures: u32, after: Option<Duration>) -> Duration {
        let limit = FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(MAX_BACKOFF);
        let after = after.unwrap_or_default().min(self.invocation.settings.retry_after_ceiling);
        self.invocation.jitter(limit).max(after)
    }

    /// Releases the claim with its counters, then waits in this process or lets the message come back.
    async fn release_and_wait(
        &self,
        active: ActiveClaim,
        count: impl FnOnce(&mut Entry),
        wait: Duration,
    ) -> Result<Progress, GenerateError> {
        let released = self.ledger.release(active, count).await?;
        if matches!(released, LedgerRead::Unreadable(_)) {
            return Ok(ControlFlow::Continue(released));
        }
        if !self.invocation.fits(wait) {
            return Ok(ControlFlow::Break(Disposition::RetryAfter(wait)));
        }
        tokio::time::sleep(wait).await;
        // Other workers may have changed the entry meanwhile.
        Ok(ControlFlow::Continue(self.ledger.read().await?))
    }

    /// Ends this round with a failure after a call.
    async fn conclude(
        &self,
        active: ActiveClaim,
        count: impl FnOnce(&mut Entry),
        failure: Failure,
    ) -> Result<Progress, GenerateError> {
        let (entry, outcome) = self.ledger.replace(active, count, State::Failed(failure.clone())).await?;
        self.after_ending(outcome, failure, &entry).await
    }

    /// Ends this round because too many claims died with an unknown outcome.
    async fn give_up(&self, mut entry: Entry, etag: Option<Etag>, died: bool) -> Result<Progress, GenerateError> {
        let failure = self.own_failure(
            "outcome_unknown",
            ErrorClass::Unknown,
            "a worker died during the call, which may have been billed; redrive the row to call again".into(),
        );
        entry.state = State::Failed(failure.clone());
        entry.written_by = Some(self.invocation.nonce());
        let outcome = self.ledger.write(&mut entry, etag, None, died).await?;
        self.after_ending(outcome, failure, &entry).await
    }

    /// Writes the failed result if the failure is in the ledger; otherwise continues with what is there.
    async fn after_ending(
        &self,
        outcome: WriteOutcome,
        failure: Failure,
        entry: &Entry,
    ) -> Result<Progress, GenerateError> {
        match outcome {
            WriteOutcome::Landed(_) => self.result.fail(&failure::ends(failure, entry)).await.map(ControlFlow::Break),
            WriteOutcome::Overtaken(read) => Ok(ControlFlow::Continue(read)),
        }
    }

    /// Records a paid outcome and completes the row.
    async fn record(
        &self,
        active: ActiveClaim,
        generated: Generated,
        latency_ms: u64,
    ) -> Result<Disposition, GenerateError> {
        let Invocation { ports, worker, .. } = self.invocation;
        let completed_at = ports.clock.now();
        let image_count = generated.images.len();
        let (mut image_urls, mut inline) = (Vec::new(), Vec::new());
        for image in generated.images {
            match image {
                GeneratedImage::Url(url) => image_urls.push(url),
                GeneratedImage::Inline(_) => inline.push(image),
            }
        }
        // Inline images exist only in this answer, so they are kept first. The others can be fetched again after a crash.
        let inline: Vec<_> = (image_urls.len() + 1..).zip(inline).collect();
        let kept = archive::keep(ports, &worker.image_slots, &self.message.catalog, &self.message.sku, &inline).await;
        let outcome = Outcome {
            job: self.message.job.clone(),
            row: self.message.row,
            request_id: generated.request_id,
            model_actual: generated.model_actual,
            image_count,
            image_urls,
            assets: kept.assets,
            archive_error: kept.error,
            latency_ms,
            completed_at,
        };
        let (calls, unknown) = (active.entry.calls, active.entry.unknown);
        match self.ledger.record_outcome(active, &outcome).await {
            Ok(paid) => self.result.complete(&self.ledger, paid).await,
            // The ledger cannot be written, but the result can, and a row with a completed result is never called for again.
            Err(error) => {
                let disposition = self.result.complete(&self.ledger, PaidOutcome { outcome, calls, unknown }).await?;
                tracing::warn!(%error, fingerprint = %self.message.fingerprint, "paid for, but not in the ledger");
                Ok(disposition)
            }
        }
    }

    /// Fails the row without a call.
    async fn fail_uncalled(&self, failure: Failure) -> Result<Progress, GenerateError> {
        self.result.fail(&failure::before_any_call(failure, self.message)).await.map(ControlFlow::Break)
    }

    fn own_failure(&self, code: &str, class: ErrorClass, error: String) -> Failure {
        failure::own(self.message.row, self.invocation.ports.clock.now(), code, class, error)
    }
}
