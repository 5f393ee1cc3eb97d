//! The metric events of the generator: every call, every unknown outcome and every end of a row is recorded exactly once.

use packshot_pipeline::{
    ledger::{Claim, Entry, JobEntry, RetryScope, State},
    model::{error_class::ErrorClass, event::MetricEvent, message::RowMessage},
    ports::StoreError,
};

use tokio::time::sleep;

use crate::harness::{
    Batch, CALL, Effect, Harness, LossyStore, VISIBILITY, job, message, not_sent, retry_after, seconds, status, unknown,
};

const COMPLETED: MetricEvent = MetricEvent::RowCompleted { reused: false, archive_error: false };

fn answered(retry: bool) -> MetricEvent {
    MetricEvent::Called { took: CALL, retry, images: 2 }
}

fn refused(retry: bool) -> MetricEvent {
    MetricEvent::Called { took: seconds(0), retry, images: 0 }
}

#[tokio::test(start_paused = true)]
async fn every_call_is_recorded_with_whether_it_is_a_retry() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    harness.script("mug", [retry_after(429, None, Some(seconds(1))), status(500, None), not_sent()]);
    harness.run(&[mug]).await;
    // A throttled call uses up no attempt, so the call after it is no retry.
    let expected = [refused(false), MetricEvent::Throttled, refused(false), refused(true), answered(true), COMPLETED];
    assert_eq!(harness.metrics(), expected);
    assert_eq!(harness.calls().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_recorded_by_the_worker_that_counts_it() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    harness.script("mug", [unknown("connection_lost", None)]);
    harness.run(std::slice::from_ref(&mug)).await;
    assert_eq!(harness.metrics(), [refused(false), MetricEvent::OutcomeUnknown, answered(true), COMPLETED]);
    assert_eq!(harness.entry(&mug).await.unknown, 1);

    // A worker that dies records nothing; the next worker counts and records the unknown outcome.
    let (harness, cup) = (Harness::new(), message(2, "cup"));
    harness.send(std::slice::from_ref(&cup)).await;
    harness.batch_killed_after(seconds(10)).await;
    assert_eq!(harness.metrics(), []);
    harness.drain().await;
    assert_eq!(harness.metrics(), [MetricEvent::OutcomeUnknown, answered(true), COMPLETED]);
    assert_eq!(harness.entry(&cup).await.unknown, 1);

    // The same, if no unknown outcome is allowed.
    let (harness, pot) = (Harness::with(|settings| settings.unknown_outcome_retries = 0), message(3, "pot"));
    harness.send(&[pot]).await;
    harness.batch_killed_after(seconds(10)).await;
    harness.drain().await;
    assert_eq!(harness.metrics(), [MetricEvent::OutcomeUnknown, MetricEvent::RowFailed(ErrorClass::Unknown)]);
}

/// A harness that allows this number of retries after unknown outcomes, and a row.
fn setup(unknown_retries: u32) -> (Harness, RowMessage) {
    (Harness::with(|settings| settings.unknown_outcome_retries = unknown_retries), message(1, "mug"))
}

/// A worker dies during a call, and the next one loses the answer to the write that counts the unknown outcome. Returns the batch of
/// the next worker.
async fn dies_then_loses(harness: &mut Harness, mug: &RowMessage, answer: StoreError, effect: Effect) -> Batch {
    // The writes before it: the claim of the dead worker, and the first claim of the next worker, which assumes a new row.
    LossyStore::install(harness, 2, answer, effect);
    harness.send(std::slice::from_ref(mug)).await;
    harness.batch_killed_after(seconds(10)).await;
    sleep(VISIBILITY).await;
    harness.batch().await
}

/// A call gets no answer, and the answer to the write that counts it is lost.
async fn calls_then_loses(harness: &mut Harness, mug: &RowMessage, answer: StoreError, effect: Effect) -> Batch {
    LossyStore::install(harness, 1, answer, effect);
    harness.script("mug", [unknown("connection_lost", None)]);
    harness.send(std::slice::from_ref(mug)).await;
    harness.batch().await
}

/// After these errors a write may have taken effect.
fn possibly_written() -> [StoreError; 2] {
    [StoreError::Conflict { key: "ledger".into() }, StoreError::Unknown { detail: "no answer".into() }]
}

const FAILED: MetricEvent = MetricEvent::RowFailed(ErrorClass::Unknown);

#[tokio::test(start_paused = true)]
async fn a_count_is_recorded_once_if_the_answer_to_its_write_is_lost() {
    for answer in possibly_written() {
        for effect in [Effect::AtOnce, Effect::Late, Effect::AtOnceUnreadable(7)] {
            let answer = || answer.clone();
            let (mut harness, mug) = setup(1);
            assert_eq!(
                dies_then_loses(&mut harness, &mug, answer(), effect).await.back.len(),
                0,
                "it recognises its claim"
            );
            assert_eq!(harness.metrics(), [MetricEvent::OutcomeUnknown, answered(true), COMPLETED]);
            assert_eq!((harness.calls().len(), harness.completed(&mug).await.unknown_outcomes), (2, 1));

            let (mut harness, mug) = setup(0);
            assert_eq!(dies_then_loses(&mut harness, &mug, answer(), effect).await.back.len(), 0);
            assert_eq!(harness.metrics(), [MetricEvent::OutcomeUnknown, FAILED]);
            assert_eq!((harness.entry(&mug).await.unknown, harness.retried().len()), (1, 1));

            let (mut harness, mug) = setup(1);
            assert_eq!(calls_then_loses(&mut harness, &mug, answer(), effect).await.back.len(), 0);
            assert_eq!(harness.metrics(), [refused(false), MetricEvent::OutcomeUnknown, answered(true), COMPLETED]);
            assert_eq!(harness.completed(&mug).await.unknown_outcomes, 1);

            let (mut harness, mug) = setup(0);
            assert_eq!(calls_then_loses(&mut harness, &mug, answer(), effect).await.back.len(), 0);
            assert_eq!(harness.metrics(), [refused(false), MetricEvent::OutcomeUnknown, FAILED]);
            assert_eq!((harness.entry(&mug).await.unknown, harness.retried().len()), (1, 1));
        }
    }
}

fn claimed_elsewhere(entry: Entry) -> Entry {
    let at = |day: &str| format!("2026-03-{day}T00:00:00Z").parse().unwrap();
    let claim = Claim { nonce: "theirs".into(), worker: "other".into(), at: at("01"), until: at("02") };
    Entry { calls: entry.calls + 1, state: State::Claimed(claim), ..entry }
}

fn counted_and_claimed_elsewhere(mut entry: Entry) -> Entry {
    entry.count_unknown();
    claimed_elsewhere(entry)
}

fn claimed_for_another_job(entry: Entry) -> Entry {
    let Entry { v, fingerprint, series, calls, unknown, spent, state, mut others, written_by } = entry;
    others.push(JobEntry { series, calls, unknown, spent, state, written_by });
    claimed_elsewhere(Entry { v, others, ..Entry::new(fingerprint, RetryScope { job: job("b"), round: 0 }) })
}

#[tokio::test(start_paused = true)]
async fn a_count_is_recorded_if_another_worker_replaces_the_entry() {
    for answer in possibly_written() {
        for next in [claimed_elsewhere, claimed_for_another_job] {
            let (mut harness, mug) = setup(1);
            let batch = calls_then_loses(&mut harness, &mug, answer.clone(), Effect::ThenOverwritten(next)).await;
            assert_eq!((batch.back.len(), harness.metrics()), (1, vec![refused(false), MetricEvent::OutcomeUnknown]));
        }
        let effect = Effect::ThenOverwritten(claimed_for_another_job);
        let (mut harness, mug) = setup(0);
        let batch = dies_then_loses(&mut harness, &mug, answer, effect).await;
        assert_eq!((batch.back.len(), harness.metrics()), (0, vec![MetricEvent::OutcomeUnknown, FAILED]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_count_of_another_worker_is_not_recorded_again() {
    for answer in possibly_written() {
        let effect = Effect::Never(counted_and_claimed_elsewhere);
        for unknown_retries in [0, 1] {
            let (mut harness, mug) = setup(unknown_retries);
            let batch = dies_then_loses(&mut harness, &mug, answer.clone(), effect).await;
            assert_eq!((batch.back.len(), harness.metrics()), (1, vec![]));

            // The worker's own call, but the write takes longer than its lease.
            let (mut harness, mug) = setup(unknown_retries);
            let batch = calls_then_loses(&mut harness, &mug, answer.clone(), effect).await;
            assert_eq!((batch.back.len(), harness.metrics()), (1, vec![refused(false)]));
            assert_eq!(harness.entry(&mug).await.unknown, 1);
        }
    }
}

/// Another worker counted the dead claim, claimed, was throttled and released: its entry is equal to what this worker tried
/// to write, except for the nonce.
#[tokio::test(start_paused = true)]
async fn an_equal_entry_of_another_worker_is_not_taken_for_the_own() {
    fn counted_and_released_elsewhere(mut entry: Entry) -> Entry {
        entry.count_unknown();
        Entry { state: State::Released, written_by: Some("theirs".into()), ..entry }
    }
    for answer in possibly_written() {
        let (mut harness, mug) = setup(1);
        calls_then_loses(&mut harness, &mug, answer, Effect::Never(counted_and_released_elsewhere)).await;
        assert!(!harness.metrics().contains(&MetricEvent::OutcomeUnknown), "{:?}", harness.metrics());
        assert_eq!(harness.entry(&mug).await.unknown, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn every_end_of_a_row_is_recorded() {
    let harness = Harness::new();
    harness.script("mug", [status(400, Some("moderation_blocked"))]);
    harness.run(&[message(1, "mug")]).await;
    assert_eq!(harness.metrics(), [refused(false), MetricEvent::RowFailed(ErrorClass::Row)]);

    // The same request in another job reuses the outcome without a call.
    let harness = Harness::new();
    harness.run(&[message(1, "mug")]).await;
    harness.run(&[RowMessage { job: job("b"), ..message(1, "mug") }]).await;
    let reused = MetricEvent::RowCompleted { reused: true, archive_error: false };
    assert_eq!(harness.metrics(), [answered(false), COMPLETED, reused]);

    // A row that has its result is not recorded again.
    harness.run(&[message(1, "mug")]).await;
    assert_eq!(harness.metrics().len(), 3);

    let harness = Harness::with(|settings| settings.archive = true);
    harness.run(&[message(1, "mug")]).await;
    let not_archived = MetricEvent::RowCompleted { reused: false, archive_error: true };
    assert_eq!(harness.metrics(), [answered(false), not_archived]);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_recorded_for_each_row_that_waits() {
    let harness = Harness::new();
    harness.script("mug", [status(402, None)]);
    harness.send(&[message(1, "mug")]).await;
    harness.batch().await;
    assert_eq!(harness.metrics(), [refused(false), MetricEvent::RowSuspended]);
    harness.send(&[message(2, "cup")]).await;
    harness.batch().await;
    assert_eq!(harness.metrics()[2..], [MetricEvent::RowSuspended]);
    harness.drain().await;
    let after = &harness.metrics()[3..];
    assert_eq!(after.iter().filter(|event| **event == COMPLETED).count(), 2);
    assert_eq!(
        after.iter().filter(|event| matches!(event, MetricEvent::Called { .. })).count(),
        harness.calls().len() - 1
    );
}
