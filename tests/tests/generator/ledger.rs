//! A request is paid for once: which rows make a call, which reuse an outcome, and how claims and lost answers are handled.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use packshot_pipeline::{
    ledger::{Claim, Entry, RetryScope, State},
    model::{error_class::ErrorClass, etag::Etag, json, keys, message::RowMessage, result::RowResult},
    ports::{Body, Object, ObjectMeta, Page, Precondition, Store, StoreError},
};
use tokio::time::sleep;

use crate::harness::{Answer, Batch, Effect, Harness, LossyStore, VISIBILITY, job, message, seconds, status, unknown};

fn next_round(message: &RowMessage) -> RowMessage {
    RowMessage { round: message.round + 1, ..message.clone() }
}

fn in_job(name: &str, row: u64, product: &str) -> RowMessage {
    RowMessage { job: job(name), ..message(row, product) }
}

#[tokio::test(start_paused = true)]
async fn a_completed_row_makes_no_call() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    harness.run(std::slice::from_ref(&mug)).await;
    let before = harness.result(&mug).await;
    // Not even if the ledger is lost, or in a higher round.
    harness.put(&keys::ledger(&mug.fingerprint), "gone").await;
    harness.run(&[mug.clone(), next_round(&mug)]).await;
    assert_eq!((harness.calls().len(), harness.result(&mug).await), (1, before));
    assert_eq!(harness.retried(), []);
}

#[tokio::test(start_paused = true)]
async fn a_failed_row_calls_again_only_in_a_higher_round() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    harness.script("mug", vec![status(500, None); 6]);
    harness.run(std::slice::from_ref(&mug)).await;
    harness.run(std::slice::from_ref(&mug)).await;
    assert_eq!(harness.calls().len(), 3);
    assert_eq!(harness.retried().len(), 1, "one message in the retry queue");

    // One redrive fails again, the next one succeeds.
    assert_eq!(harness.retry.redrive_to(&harness.rows), 1);
    harness.drain().await;
    let failed = harness.failed(&mug).await;
    assert_eq!((harness.calls().len(), failed.attempts, failed.round), (6, 6, 1));
    assert_eq!(harness.retry.redrive_to(&harness.rows), 1);
    harness.drain().await;
    let completed = harness.completed(&mug).await;
    assert_eq!((harness.calls().len(), completed.attempts, completed.reused), (7, 7, false));

    // Late messages of earlier rounds have no effect.
    harness.run(&[mug.clone(), next_round(&mug)]).await;
    assert_eq!((harness.calls().len(), harness.completed(&mug).await), (7, completed));
    assert!(harness.retry.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_row_never_calls_again() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    harness.script("mug", [status(400, Some("moderation_blocked"))]);
    harness.run(&[mug.clone(), mug.clone(), next_round(&mug)]).await;
    assert_eq!((harness.calls().len(), harness.failed(&mug).await.round), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn completed_never_becomes_failed() {
    let (harness, mug) = (Harness::with(|settings| settings.unknown_outcome_retries = 0), message(1, "mug"));
    let elsewhere = Harness::new();
    elsewhere.run(std::slice::from_ref(&mug)).await;
    let completed = elsewhere.result(&mug).await.unwrap();

    harness.script("mug", [Answer::Never]);
    harness.send(std::slice::from_ref(&mug)).await;
    let completes = async {
        sleep(seconds(100)).await;
        harness.put(&keys::result(&mug.job, 1, &mug.sku), json::to_line(&completed)).await;
    };
    let (batch, ()) = tokio::join!(harness.batch(), completes);
    assert_eq!((batch.took, batch.back.len()), (seconds(300), 0));
    assert!(matches!(harness.entry(&mug).await.state, State::Failed(_)));
    assert_eq!(harness.result(&mug).await, Some(completed));
}

#[tokio::test(start_paused = true)]
async fn two_rows_with_one_request_share_the_outcome() {
    let (harness, first, second) = (Harness::new(), message(1, "mug"), message(2, "mug"));
    harness.send(&[first.clone(), second.clone()]).await;
    assert_eq!(harness.batch().await.back, ["m2"], "one row calls, the other message is delivered again");
    harness.drain().await;
    let (first, second) = (harness.completed(&first).await, harness.completed(&second).await);
    assert_eq!(harness.calls().len(), 1);
    assert_eq!((first.attempts, first.reused, second.attempts, second.reused), (1, false, 0, true));
    assert_eq!((first.request_id, first.image_urls), (second.request_id, second.image_urls));
}

#[tokio::test(start_paused = true)]
async fn two_rows_with_one_request_share_the_failure() {
    for (answers, calls) in [(vec![status(400, None)], 1), (vec![unknown("timeout", None); 2], 2)] {
        let (harness, first, second) = (Harness::new(), message(1, "mug"), message(2, "mug"));
        harness.script("mug", answers);
        harness.run(&[first.clone(), second.clone()]).await;
        let (first, second) = (harness.failed(&first).await, harness.failed(&second).await);
        assert_eq!(harness.calls().len(), calls);
        // The row that made the last call has the attempts.
        let (own, shared) = if first.reused { (&second, &first) } else { (&first, &second) };
        assert_eq!((own.attempts as usize, own.reused, shared.attempts, shared.reused), (calls, false, 0, true));
        assert_eq!((&own.error, &own.error_code), (&shared.error, &shared.error_code));
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_are_reused_for_as_long_as_configured() {
    const DAY: u64 = 24 * 3600;
    for (reuse_days, passed_days, same_job, calls) in [
        (30, 0, false, 1),
        (30, 29, false, 1),
        (30, 31, false, 2),
        (0, 0, false, 2),
        // The rows of one job share an outcome in any case.
        (0, 0, true, 1),
        (30, 31, true, 1),
    ] {
        let harness = Harness::with(|settings| settings.reuse = seconds(reuse_days * DAY));
        harness.run(&[message(1, "mug")]).await;
        sleep(seconds(passed_days * DAY)).await;
        let later = in_job(if same_job { "a" } else { "b" }, 2, "mug");
        harness.run(std::slice::from_ref(&later)).await;
        assert_eq!(harness.calls().len(), calls, "{reuse_days} {passed_days} {same_job}");
        let completed = harness.completed(&later).await;
        assert_eq!((completed.reused, completed.attempts as usize), (calls == 1, calls - 1));
    }
}

#[tokio::test(start_paused = true)]
async fn another_jobs_failure_is_not_reused() {
    let harness = Harness::new();
    harness.script("mug", vec![unknown("timeout", None); 2]);
    let (first, second) = (message(1, "mug"), in_job("b", 1, "mug"));
    harness.run(std::slice::from_ref(&first)).await;
    harness.run(std::slice::from_ref(&second)).await;
    harness.failed(&first).await;
    let completed = harness.completed(&second).await;
    assert_eq!((completed.attempts, completed.unknown_outcomes), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_expired_claim_is_counted_as_an_unknown_outcome() {
    for (retries, deaths, code) in [
        (0, 1, Some("outcome_unknown")),
        (1, 1, None),
        (1, 2, Some("outcome_unknown")),
        (2, 2, None),
        (2, 3, Some("outcome_unknown")),
    ] {
        let (harness, mug) = (Harness::with(|settings| settings.unknown_outcome_retries = retries), message(1, "mug"));
        harness.send(std::slice::from_ref(&mug)).await;
        for _ in 0..deaths {
            harness.batch_killed_after(seconds(10)).await;
            sleep(VISIBILITY).await;
        }
        harness.drain().await;
        let (calls, counts) = match code {
            None => {
                let completed = harness.completed(&mug).await;
                (deaths + 1, (completed.attempts, completed.unknown_outcomes))
            }
            Some(code) => {
                let failed = harness.failed(&mug).await;
                assert_eq!((failed.error_code.as_str(), failed.error_class), (code, ErrorClass::Unknown));
                (deaths, (failed.attempts, failed.unknown_outcomes))
            }
        };
        assert_eq!((harness.calls().len() as u32, counts), (calls, (calls, deaths)), "{retries} {deaths}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_redrive_calls_again_after_an_unknown_outcome() {
    let (harness, mug) = (Harness::with(|settings| settings.unknown_outcome_retries = 0), message(1, "mug"));
    harness.script("mug", [unknown("connection_lost", None)]);
    harness.run(std::slice::from_ref(&mug)).await;
    assert_eq!(harness.calls().len(), 1, "no further call without a redrive");
    harness.retry.redrive_to(&harness.rows);
    harness.drain().await;
    let completed = harness.completed(&mug).await;
    assert_eq!((completed.attempts, completed.unknown_outcomes), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_live_claim_sends_the_message_back() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    harness.send(std::slice::from_ref(&mug)).await;
    harness.batch_killed_after(seconds(10)).await;
    harness.send(std::slice::from_ref(&mug)).await;
    // The lease is the request timeout plus a minute.
    let mut passed = seconds(10);
    while harness.calls().len() == 1 {
        let batch = harness.batch_within(seconds(600)).await;
        if harness.calls().len() == 1 {
            assert_eq!((batch.back, batch.took.as_secs()), (vec!["m2".to_owned()], 0));
            let wait = harness.until_visible().await;
            assert!(wait <= seconds(15) * 5 / 4, "{wait:?}");
            passed += wait;
        }
    }
    assert!((seconds(360)..seconds(380)).contains(&passed), "{passed:?}");
    assert_eq!(harness.completed(&mug).await.unknown_outcomes, 1);
}

#[tokio::test(start_paused = true)]
async fn the_sole_worker_does_not_wait_for_leases_of_other_processes() {
    let (killed, mug) = (Harness::with(|settings| settings.sole_worker = true), message(1, "mug"));
    killed.send(std::slice::from_ref(&mug)).await;
    killed.batch_killed_after(seconds(10)).await;
    let next = killed.another_process();
    let started = tokio::time::Instant::now();
    next.send(&[mug.clone(), message(2, "mug")]).await;
    assert_eq!(next.batch().await.back.len(), 1, "its own claim has not expired");
    assert!(next.calls()[1].at - started < seconds(1));
    assert_eq!(next.completed(&mug).await.unknown_outcomes, 1, "the unknown outcome is counted");
}

#[tokio::test(start_paused = true)]
async fn a_released_claim_of_a_dead_worker_is_no_unknown_outcome() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    harness.script("mug", [status(500, None)]);
    harness.put_entry(&Entry::new(mug.fingerprint.clone(), RetryScope { job: mug.job.clone(), round: 0 })).await;
    harness.run(std::slice::from_ref(&mug)).await;
    let completed = harness.completed(&mug).await;
    assert_eq!((completed.attempts, completed.unknown_outcomes), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_ledger_object_fails_the_row() {
    let mug = message(1, "mug");
    let entry = Entry::new(mug.fingerprint.clone(), RetryScope { job: mug.job.clone(), round: 0 });
    let other = Entry { fingerprint: message(1, "bag").fingerprint, ..entry.clone() };
    let newer = Entry { v: 2, ..entry };
    for (object, says) in [
        (b"not ours".to_vec(), "expected"),
        (b"".to_vec(), "EOF"),
        (b"{\"v\":2,\"shape\":\"unheard of\"}".to_vec(), "version 2"),
        (json::to_vec(&newer), "version 2"),
        (json::to_vec(&other), "another fingerprint"),
    ] {
        let harness = Harness::new();
        let key = keys::ledger(&mug.fingerprint);
        harness.put(&key, object.clone()).await;
        harness.run(std::slice::from_ref(&mug)).await;
        let failed = harness.failed(&mug).await;
        assert_eq!((failed.error_code.as_str(), failed.attempts), ("ledger_unreadable", 0));
        assert!(failed.error.contains(says) && failed.error.contains(&key), "{}", failed.error);
        assert_eq!(
            (harness.calls().len(), harness.read(&key).await),
            (0, Some(Bytes::from(object))),
            "the object is unchanged"
        );
        assert_eq!(harness.retried()[0].0, "ledger_unreadable");
        // Does what the error recommends: moves the object away, then redrives.
        harness.put_entry(&Entry::new(mug.fingerprint.clone(), RetryScope { job: mug.job.clone(), round: 0 })).await;
        harness.retry.redrive_to(&harness.rows);
        harness.drain().await;
        harness.completed(&mug).await;
    }
}

/// A worker stalls longer than its lease, and writes its outcome while another worker calls.
#[tokio::test(start_paused = true)]
async fn a_late_outcome_is_kept_and_the_row_ends_once() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    let expired = Claim {
        nonce: "theirs".into(),
        worker: "other".into(),
        at: harness.ports.clock.now() - seconds(400),
        until: harness.ports.clock.now() - seconds(1),
    };
    let mut entry = Entry::new(mug.fingerprint.clone(), RetryScope { job: mug.job.clone(), round: 0 });
    entry.calls = 1;
    entry.state = State::Claimed(expired);
    harness.put_entry(&entry).await;
    harness.send(std::slice::from_ref(&mug)).await;
    let elsewhere = Harness::new();
    elsewhere.run(std::slice::from_ref(&mug)).await;
    let State::Completed(mut outcome) = elsewhere.entry(&mug).await.state else { panic!("not completed") };
    outcome.request_id = Some("late".into());
    let late_write = async {
        sleep(seconds(5)).await;
        let current = harness.entry(&mug).await;
        assert_eq!(current.unknown, 1, "the expired claim is counted before the call");
        harness.put_entry(&Entry { state: State::Completed(outcome), ..current }).await;
    };
    let (batch, ()) = tokio::join!(harness.batch(), late_write);
    assert_eq!(batch.back.len(), 0);
    let completed = harness.completed(&mug).await;
    assert_eq!((completed.request_id.as_deref(), completed.attempts), (Some("late"), 2));
    assert_eq!(completed.unknown_outcomes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_is_recognised() {
    let conflict = StoreError::Conflict { key: "ledger".into() };
    let unknown = StoreError::Unknown { detail: "no answer".into() };
    let script = [status(500, None), status(429, None)];
    // Claim, release, claim, release, claim, outcome.
    for number in 0..6 {
        for answer in [conflict.clone(), unknown.clone()] {
            let (mut harness, mug) = (Harness::new(), message(1, "mug"));
            harness.script("mug", script.clone());
            let lossy = LossyStore::install(&mut harness, number, answer, Effect::AtOnce);
            harness.send(std::slice::from_ref(&mug)).await;
            assert_eq!(harness.batch().await.back, Vec::<String>::new());
            let completed = harness.completed(&mug).await;
            assert_eq!((harness.calls().len(), completed.attempts, completed.unknown_outcomes), (3, 2, 0), "{number}");
            assert_eq!(lossy.writes(), 6, "no write is repeated");
        }
    }
}

const BREAKER: &str = "GET control";

/// A store that logs its requests, for example `GET ledger` or `PUT results refused`.
struct RequestLog {
    store: Arc<dyn Store>,
    requests: Mutex<Vec<String>>,
}

impl RequestLog {
    fn install(harness: &mut Harness) -> Arc<Self> {
        let log = Arc::new(Self { store: harness.ports.store.clone(), requests: Mutex::default() });
        harness.ports.store = log.clone();
        log
    }

    fn log(&self, method: &str, key: &str, refused: bool) {
        let (prefix, _) = key.split_once('/').unwrap();
        let refused = if refused { " refused" } else { "" };
        self.requests.lock().unwrap().push(format!("{method} {prefix}{refused}"));
    }

    /// The requests since the last call, without reads of the breaker.
    fn take(&self) -> Vec<String> {
        let mut requests = std::mem::take(&mut *self.requests.lock().unwrap());
        requests.retain(|request| request != BREAKER);
        requests
    }

    /// The number of reads of the breaker since the last call.
    fn breaker_reads(&self) -> usize {
        self.requests.lock().unwrap().drain(..).filter(|request| request == BREAKER).count()
    }
}

#[async_trait]
impl Store for RequestLog {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.log("HEAD", key, false);
        self.store.head(key).await
    }

    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        self.log("GET", key, false);
        self.store.open(key, version).await
    }

    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
        let done = self.store.put(key, body, precondition).await;
        self.log("PUT", key, done.is_err());
        done
    }

    async fn put_stream(&self, key: &str, body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError> {
        self.store.put_stream(key, body, precondition).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        self.store.list(prefix, after).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_row_is_claimed_before_anything_is_read() {
    const NEW: [&str; 3] = ["PUT ledger", "PUT ledger", "PUT results"];
    const KNOWN: [&str; 3] = ["GET results", "GET ledger", "PUT results"];
    const NEW_AFTER_KNOWN: [&str; 5] = ["GET results", "GET ledger", "PUT ledger", "PUT ledger", "PUT results"];
    let mut harness = Harness::new();
    let log = RequestLog::install(&mut harness);
    let (mug, bag, hat, cup) = (message(1, "mug"), message(2, "bag"), message(3, "hat"), message(4, "cup"));
    for new in [&mug, &bag] {
        harness.run(std::slice::from_ref(new)).await;
        assert_eq!(log.take(), NEW);
    }
    // The catalog is uploaded again: one refused claim, then reads first until a row is new.
    harness.run(&[in_job("b", 1, "mug")]).await;
    assert_eq!(log.take(), ["PUT ledger refused", "GET ledger", "GET results", "PUT results"]);
    harness.run(&[in_job("b", 2, "bag")]).await;
    assert_eq!(log.take(), KNOWN);
    harness.run(&[hat]).await;
    assert_eq!(log.take(), NEW_AFTER_KNOWN);
    harness.run(&[cup]).await;
    assert_eq!(log.take(), NEW);
    assert_eq!(harness.calls().len(), 4);
    // A row in a higher round is not new.
    harness.run(&[next_round(&mug)]).await;
    assert_eq!(log.take(), ["GET results", "GET ledger"]);
}

#[tokio::test(start_paused = true)]
async fn one_row_of_a_batch_reads_the_breaker_for_all() {
    let mut harness = Harness::new();
    let log = RequestLog::install(&mut harness);
    let products: Vec<_> = (1..=10).map(|row| message(row, &format!("product {row}"))).collect();
    harness.send(&products).await;
    harness.batch().await;
    assert_eq!((harness.calls().len(), log.breaker_reads()), (10, 1));
    // The calls took longer than a read of the breaker stays valid.
    harness.send(&[message(11, "mug"), message(12, "bag")]).await;
    harness.batch().await;
    assert_eq!((harness.calls().len(), log.breaker_reads()), (12, 1));
}

#[tokio::test(start_paused = true)]
async fn rows_without_a_call_complete_while_the_account_cannot_pay() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    harness.run(std::slice::from_ref(&mug)).await;
    harness.script("bag", [status(402, None)]);
    harness.send(&[message(2, "bag")]).await;
    harness.batch().await;
    // In this process, which has read the open breaker, and in a new one.
    for harness in [harness.another_process(), harness] {
        let reused = in_job("b", 1, "mug");
        harness.send(&[mug.clone(), reused.clone()]).await;
        assert_eq!(harness.batch().await.back, Vec::<String>::new());
        assert!(harness.completed(&reused).await.reused);
        assert_eq!(harness.calls().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn rows_without_a_call_do_not_wait_for_the_rate_limit() {
    let harness = Harness::with(|settings| settings.requests_per_minute = NonZeroU32::new(1));
    harness.run(&[message(1, "mug"), message(2, "bag"), message(3, "hat")]).await;
    let another = harness.another_process();
    another.send(&[in_job("b", 1, "mug"), in_job("b", 2, "bag"), in_job("b", 3, "hat")]).await;
    assert_eq!(another.batch().await, Batch { took: Duration::ZERO, back: vec![] });
    assert_eq!(harness.calls().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_result_is_replaced() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    harness.put(&keys::result(&mug.job, 1, &mug.sku), "half a li").await;
    harness.run(std::slice::from_ref(&mug)).await;
    assert!(matches!(harness.result(&mug).await, Some(RowResult::Completed(_))));
}
