//! What the generator tells whoever watches: every call and every end of a row, once.

use packshot_pipeline::{
    ledger::{Claim, Entry, JobEntry, RetryScope, State},
    model::{error_class::ErrorClass, event::MetricEvent, message::RowMessage},
    ports::StoreError,
};

use tokio::time::sleep;

use crate::rig::{
    Batch, CALL, Effect, LosesAnswer, Rig, VISIBILITY, job, message, not_sent, retry_after, seconds, status, unknown,
};

const COMPLETED: MetricEvent = MetricEvent::RowCompleted { reused: false, archive_error: false };

fn answered(retry: bool) -> MetricEvent {
    MetricEvent::Called { took: CALL, retry, images: 2 }
}

fn refused(retry: bool) -> MetricEvent {
    MetricEvent::Called { took: seconds(0), retry, images: 0 }
}

#[tokio::test(start_paused = true)]
async fn every_call_is_told_and_says_whether_it_is_the_first() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.script("mug", [retry_after(429, None, Some(seconds(1))), status(500, None), not_sent()]);
    rig.run(&[mug]).await;
    // What was throttled has used up nothing, so the call after it is the row's first.
    let expected = [refused(false), MetricEvent::Throttled, refused(false), refused(true), answered(true), COMPLETED];
    assert_eq!(rig.facts(), expected);
    assert_eq!(rig.calls().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_billed_is_told_by_whoever_counts_it() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.script("mug", [unknown("connection_lost", None)]);
    rig.run(std::slice::from_ref(&mug)).await;
    assert_eq!(rig.facts(), [refused(false), MetricEvent::OutcomeUnknown, answered(true), COMPLETED]);
    assert_eq!(rig.entry(&mug).await.unknown, 1);

    // A worker that dies takes its facts along; what it leaves behind is told by the next.
    let (rig, cup) = (Rig::new(), message(2, "cup"));
    rig.send(std::slice::from_ref(&cup)).await;
    rig.batch_killed_after(seconds(10)).await;
    assert_eq!(rig.facts(), []);
    rig.drain().await;
    assert_eq!(rig.facts(), [MetricEvent::OutcomeUnknown, answered(true), COMPLETED]);
    assert_eq!(rig.entry(&cup).await.unknown, 1);

    // The same, where that was one too many.
    let (rig, pot) = (Rig::with(|settings| settings.unknown_outcome_retries = 0), message(3, "pot"));
    rig.send(&[pot]).await;
    rig.batch_killed_after(seconds(10)).await;
    rig.drain().await;
    assert_eq!(rig.facts(), [MetricEvent::OutcomeUnknown, MetricEvent::RowFailed(ErrorClass::Unknown)]);
}

/// A world with one row and no further calls after so many unknown outcomes.
fn world(unknown_retries: u32) -> (Rig, RowMessage) {
    (Rig::with(|settings| settings.unknown_outcome_retries = unknown_retries), message(1, "mug"))
}

/// A worker dies during a call, and the answer to the write that counts it is lost. How the next delivery ends.
async fn dies_then_loses(rig: &mut Rig, mug: &RowMessage, answer: StoreError, effect: Effect) -> Batch {
    // Before it come the dead worker's claim and the next one's try at a row that might be new.
    LosesAnswer::over(rig, 2, answer, effect);
    rig.send(std::slice::from_ref(mug)).await;
    rig.batch_killed_after(seconds(10)).await;
    sleep(VISIBILITY).await;
    rig.batch().await
}

/// A call has no answer, and neither has the write that counts it.
async fn calls_then_loses(rig: &mut Rig, mug: &RowMessage, answer: StoreError, effect: Effect) -> Batch {
    LosesAnswer::over(rig, 1, answer, effect);
    rig.script("mug", [unknown("connection_lost", None)]);
    rig.send(std::slice::from_ref(mug)).await;
    rig.batch().await
}

/// After these a write may have taken effect.
fn unclear() -> [StoreError; 2] {
    [StoreError::Conflict { key: "ledger".into() }, StoreError::Unknown { detail: "no answer".into() }]
}

const FAILED: MetricEvent = MetricEvent::RowFailed(ErrorClass::Unknown);

#[tokio::test(start_paused = true)]
async fn what_a_write_counts_is_told_once_though_its_answer_is_lost() {
    for answer in unclear() {
        for effect in [Effect::AtOnce, Effect::Late, Effect::AtOnceUnreadable(7)] {
            let answer = || answer.clone();
            let (mut rig, mug) = world(1);
            assert_eq!(dies_then_loses(&mut rig, &mug, answer(), effect).await.back.len(), 0, "it knows its claim");
            assert_eq!(rig.facts(), [MetricEvent::OutcomeUnknown, answered(true), COMPLETED]);
            assert_eq!((rig.calls().len(), rig.completed(&mug).await.unknown_outcomes), (2, 1));

            let (mut rig, mug) = world(0);
            assert_eq!(dies_then_loses(&mut rig, &mug, answer(), effect).await.back.len(), 0);
            assert_eq!(rig.facts(), [MetricEvent::OutcomeUnknown, FAILED]);
            assert_eq!((rig.entry(&mug).await.unknown, rig.retried().len()), (1, 1));

            let (mut rig, mug) = world(1);
            assert_eq!(calls_then_loses(&mut rig, &mug, answer(), effect).await.back.len(), 0);
            assert_eq!(rig.facts(), [refused(false), MetricEvent::OutcomeUnknown, answered(true), COMPLETED]);
            assert_eq!(rig.completed(&mug).await.unknown_outcomes, 1);

            let (mut rig, mug) = world(0);
            assert_eq!(calls_then_loses(&mut rig, &mug, answer(), effect).await.back.len(), 0);
            assert_eq!(rig.facts(), [refused(false), MetricEvent::OutcomeUnknown, FAILED]);
            assert_eq!((rig.entry(&mug).await.unknown, rig.retried().len()), (1, 1));
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
    let Entry { v, fingerprint, series, calls, unknown, spent, state, mut others } = entry;
    others.push(JobEntry { series, calls, unknown, spent, state });
    claimed_elsewhere(Entry { v, others, ..Entry::new(fingerprint, RetryScope { job: job("b"), round: 0 }) })
}

#[tokio::test(start_paused = true)]
async fn what_a_write_counted_is_told_though_another_worker_writes_at_once() {
    for answer in unclear() {
        for next in [claimed_elsewhere, claimed_for_another_job] {
            let (mut rig, mug) = world(1);
            let batch = calls_then_loses(&mut rig, &mug, answer.clone(), Effect::ThenOverwritten(next)).await;
            assert_eq!((batch.back.len(), rig.facts()), (1, vec![refused(false), MetricEvent::OutcomeUnknown]));
        }
        let behind = Effect::ThenOverwritten(claimed_for_another_job);
        let (mut rig, mug) = world(0);
        let batch = dies_then_loses(&mut rig, &mug, answer, behind).await;
        assert_eq!((batch.back.len(), rig.facts()), (0, vec![MetricEvent::OutcomeUnknown, FAILED]));
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_worker_has_counted_is_left_to_it() {
    for answer in unclear() {
        let first = Effect::Never(counted_and_claimed_elsewhere);
        for unknown_retries in [0, 1] {
            let (mut rig, mug) = world(unknown_retries);
            let batch = dies_then_loses(&mut rig, &mug, answer.clone(), first).await;
            assert_eq!((batch.back.len(), rig.facts()), (1, vec![]));

            // Its own call, but the write takes longer than its claim is good for.
            let (mut rig, mug) = world(unknown_retries);
            let batch = calls_then_loses(&mut rig, &mug, answer.clone(), first).await;
            assert_eq!((batch.back.len(), rig.facts()), (1, vec![refused(false)]));
            assert_eq!(rig.entry(&mug).await.unknown, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ends_of_rows() {
    let rig = Rig::new();
    rig.script("mug", [status(400, Some("moderation_blocked"))]);
    rig.run(&[message(1, "mug")]).await;
    assert_eq!(rig.facts(), [refused(false), MetricEvent::RowFailed(ErrorClass::Row)]);

    // The same request in another job: shared, and no call.
    let rig = Rig::new();
    rig.run(&[message(1, "mug")]).await;
    rig.run(&[RowMessage { job: job("b"), ..message(1, "mug") }]).await;
    let reused = MetricEvent::RowCompleted { reused: true, archive_error: false };
    assert_eq!(rig.facts(), [answered(false), COMPLETED, reused]);

    // A row that is settled already is not told again.
    rig.run(&[message(1, "mug")]).await;
    assert_eq!(rig.facts().len(), 3);

    let rig = Rig::with(|settings| settings.archive = true);
    rig.run(&[message(1, "mug")]).await;
    let unkept = MetricEvent::RowCompleted { reused: false, archive_error: true };
    assert_eq!(rig.facts(), [answered(false), unkept]);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_told_by_whoever_is_held_back() {
    let rig = Rig::new();
    rig.script("mug", [status(402, None)]);
    rig.send(&[message(1, "mug")]).await;
    rig.batch().await;
    assert_eq!(rig.facts(), [refused(false), MetricEvent::Held]);
    rig.send(&[message(2, "cup")]).await;
    rig.batch().await;
    assert_eq!(rig.facts()[2..], [MetricEvent::Held]);
    rig.drain().await;
    let after = &rig.facts()[3..];
    assert_eq!(after.iter().filter(|fact| **fact == COMPLETED).count(), 2);
    assert_eq!(after.iter().filter(|fact| matches!(fact, MetricEvent::Called { .. })).count(), rig.calls().len() - 1);
}
