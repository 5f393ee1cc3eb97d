//! Writes the result of a row.
//!
//! A failed result never replaces a completed one, and a failed result of an earlier round never replaces one of a later
//! round. A failed row gets its message in the retry queue before its result, because nothing writes the message once the
//! result exists.

use std::time::Duration;

use super::{
    archive,
    disposition::{Disposition, GenerateError},
    failure::attributes,
    fingerprint_ledger::FingerprintLedger,
    invocation::{AFTER_CALL, Invocation},
};
use crate::{
    ledger::{Outcome, PaidOutcome, TerminalFailure},
    model::{
        error_class::ErrorClass,
        event::MetricEvent,
        keys,
        message::RowMessage,
        result::{Completed, CompletedStatus, Failed, FailedStatus, RowResult},
    },
    ports::{GeneratedImage, OutgoingMessage, StoreError},
    storage::{Current, Document},
};

/// The longest time that a row waits for its images to be kept.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(120);

/// The result object of one row.
pub(super) struct RowResultFile<'a> {
    invocation: Invocation<'a>,
    message: &'a RowMessage,
    document: Document<RowResult>,
    /// As it was read last, or assumed absent. If it is out of date, it costs one more attempt.
    before: Current<RowResult>,
}

impl<'a> RowResultFile<'a> {
    pub(super) fn new(invocation: Invocation<'a>, message: &'a RowMessage) -> Self {
        let document = Document::line(keys::result(&message.job, message.row, &message.sku));
        Self { invocation, message, document, before: Current::absent() }
    }

    pub(super) async fn read(&self) -> Result<Current<RowResult>, StoreError> {
        self.document.read_or_discard(self.invocation.ports).await
    }

    pub(super) fn remember(&mut self, current: Current<RowResult>) {
        self.before = current;
    }

    /// Whether this delivery has nothing left to do: the row is completed, or has failed for this round, or for good.
    pub(super) fn is_settled(&self) -> bool {
        match &self.before.value {
            Some(RowResult::Completed(_)) => true,
            Some(RowResult::Failed(failed)) => {
                failed.round >= self.message.round || failed.error_class == ErrorClass::Row
            }
            None => false,
        }
    }

    /// Keeps the images that are not kept yet, then writes the completed result of a paid outcome.
    pub(super) async fn complete(
        &self,
        ledger: &FingerprintLedger<'_>,
        PaidOutcome { mut outcome, calls, unknown }: PaidOutcome,
    ) -> Result<Disposition, GenerateError> {
        let Invocation { ports, settings, worker, .. } = self.invocation;
        let message = self.message;
        let paid_here = outcome.job == message.job && outcome.row == message.row;
        let urls = outcome.image_urls.len();
        if settings.archive && outcome.assets.iter().filter(|asset| asset.n <= urls).count() < urls {
            self.keep_images(&mut outcome).await;
            if paid_here && !outcome.assets.is_empty() {
                ledger.record_assets(&outcome).await;
            }
        }
        let (request_id, archive_error) = (outcome.request_id.clone(), outcome.archive_error.is_some());
        let result = RowResult::Completed(Box::new(Completed {
            sku: message.sku.clone(),
            status: CompletedStatus::Completed,
            image_count: outcome.image_count,
            image_urls: outcome.image_urls,
            request_id: outcome.request_id,
            model_actual: outcome.model_actual,
            row: message.row,
            job: message.job.clone(),
            fingerprint: message.fingerprint.clone(),
            attempts: if paid_here { calls } else { 0 },
            reused: !paid_here,
            model: message.request.model.clone(),
            latency_ms: outcome.latency_ms,
            completed_at: outcome.completed_at,
            short: outcome.image_count < usize::from(message.request.n),
            assets: outcome.assets,
            unknown_outcomes: if paid_here { unknown } else { 0 },
            archive_error: outcome.archive_error,
            image_url: Some(message.request.image_url.clone()),
            prompt: Some(message.request.prompt.clone()),
        }));
        let unless_completed =
            |current: Option<&RowResult>| (!matches!(current, Some(RowResult::Completed(_)))).then(|| result.clone());
        self.document.update(ports, self.before.clone(), unless_completed).await?;
        ports.metrics.record(MetricEvent::RowCompleted { reused: !paid_here, archive_error });
        tracing::info!(api_request_id = request_id, reused = !paid_here, archive_error, "completed");
        if paid_here {
            worker.guardrail.ended(ports, &message.job, message.round, false).await?;
        }
        Ok(Disposition::Ack)
    }

    /// Keeps the images that the API returned as addresses, as far as the time allows. Inline images are kept already.
    async fn keep_images(&self, outcome: &mut Outcome) {
        let Invocation { ports, worker, .. } = self.invocation;
        let urls = outcome.image_urls.iter().cloned().zip(1..).map(|(url, n)| (n, GeneratedImage::Url(url)));
        let images: Vec<_> = urls.collect();
        let keep = archive::keep(ports, &worker.image_slots, &self.message.catalog, &self.message.sku, &images);
        let limit = ARCHIVE_TIMEOUT.min(self.invocation.left().saturating_sub(AFTER_CALL / 2));
        let Ok(kept) = tokio::time::timeout(limit, keep).await else {
            outcome.archive_error = Some("the images could not be fetched in time".into());
            return;
        };
        let urls = outcome.image_urls.len();
        outcome.assets.retain(|asset| asset.n > urls);
        // Inline images cannot be fetched again, so their error is still valid.
        let still_lost = outcome.archive_error.take().filter(|_| urls + outcome.assets.len() < outcome.image_count);
        outcome.archive_error = still_lost.into_iter().chain(kept.error).reduce(|a, b| format!("{a}; {b}"));
        outcome.assets.splice(0..0, kept.assets);
    }

    /// Sends the row to the retry queue if a retry can help, then writes the failed result.
    pub(super) async fn fail(&self, terminal_failure: &TerminalFailure) -> Result<Disposition, GenerateError> {
        let Invocation { ports, worker, .. } = self.invocation;
        let (message, failure) = (self.message, &terminal_failure.failure);
        // The failure may be one of a later round, which then counts for this row too: only the round after it calls again.
        let round = terminal_failure.round.max(message.round);
        if failure.error_class.may_heal() {
            let retry = RowMessage { round: round + 1, ..message.clone() };
            let attributes = attributes(&failure.error_code, failure.error_class);
            ports.retry.send(&[OutgoingMessage { body: retry.encode(), attributes }]).await?;
        }
        let reused = failure.row != message.row;
        let (calls, unknown) = if reused { (0, 0) } else { (terminal_failure.calls, terminal_failure.unknown) };
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
        let unless_later = |current: Option<&RowResult>| match current {
            Some(RowResult::Completed(_)) => None,
            Some(RowResult::Failed(failed)) if failed.round >= round => None,
            _ => Some(result.clone()),
        };
        self.document.update(ports, self.before.clone(), unless_later).await?;
        ports.metrics.record(MetricEvent::RowFailed(failure.error_class));
        tracing::info!(code = failure.error_code, class = failure.error_class.as_str(), round, "failed");
        if calls > 0 {
            worker.guardrail.ended(ports, &message.job, round, true).await?;
        }
        Ok(Disposition::Ack)
    }
}
