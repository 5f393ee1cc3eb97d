//! Paid once: what is called for again, and what is not.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use packshot_pipeline::{
    ledger::{Claim, Entry, Series, State},
    model::{error_class::ErrorClass, etag::Etag, json, keys, message::RowMessage, result::RowResult},
    ports::{Body, Object, ObjectMeta, Page, Precondition, Store, StoreError},
};
use tokio::time::sleep;

use crate::rig::{Answer, Batch, Effect, LosesAnswer, Rig, VISIBILITY, job, message, seconds, status, unknown};

fn again(message: &RowMessage) -> RowMessage {
    RowMessage { round: message.round + 1, ..message.clone() }
}

fn in_job(name: &str, row: u64, product: &str) -> RowMessage {
    RowMessage { job: job(name), ..message(row, product) }
}

#[tokio::test(start_paused = true)]
async fn a_completed_row_is_not_called_for() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.run(std::slice::from_ref(&mug)).await;
    let before = rig.result(&mug).await;
    // Not even if the ledger is lost, or a person asks again.
    rig.put(&keys::ledger(&mug.fingerprint), "gone").await;
    rig.run(&[mug.clone(), again(&mug)]).await;
    assert_eq!((rig.calls().len(), rig.result(&mug).await), (1, before));
    assert_eq!(rig.retried(), []);
}

#[tokio::test(start_paused = true)]
async fn a_failed_row_is_called_for_only_in_a_higher_round() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.script("mug", vec![status(500, None); 6]);
    rig.run(std::slice::from_ref(&mug)).await;
    rig.run(std::slice::from_ref(&mug)).await;
    assert_eq!(rig.calls().len(), 3);
    assert_eq!(rig.retried().len(), 1, "one place in the retry queue");

    // A redrive that fails again, and one that succeeds.
    assert_eq!(rig.retry.redrive_to(&rig.rows), 1);
    rig.drain().await;
    let failed = rig.failed(&mug).await;
    assert_eq!((rig.calls().len(), failed.attempts, failed.round), (6, 6, 1));
    assert_eq!(rig.retry.redrive_to(&rig.rows), 1);
    rig.drain().await;
    let completed = rig.completed(&mug).await;
    assert_eq!((rig.calls().len(), completed.attempts, completed.reused), (7, 7, false));

    // What arrives late of earlier rounds does nothing.
    rig.run(&[mug.clone(), again(&mug)]).await;
    assert_eq!((rig.calls().len(), rig.completed(&mug).await), (7, completed));
    assert!(rig.retry.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_row_is_never_called_for_again() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.script("mug", [status(400, Some("moderation_blocked"))]);
    rig.run(&[mug.clone(), mug.clone(), again(&mug)]).await;
    assert_eq!((rig.calls().len(), rig.failed(&mug).await.round), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn completed_never_becomes_failed() {
    let (rig, mug) = (Rig::with(|settings| settings.unknown_outcome_retries = 0), message(1, "mug"));
    let elsewhere = Rig::new();
    elsewhere.run(std::slice::from_ref(&mug)).await;
    let completed = elsewhere.result(&mug).await.unwrap();

    rig.script("mug", [Answer::Never]);
    rig.send(std::slice::from_ref(&mug)).await;
    let completes = async {
        sleep(seconds(100)).await;
        rig.put(&keys::result(&mug.job, 1, &mug.sku), json::to_line(&completed)).await;
    };
    let (batch, ()) = tokio::join!(rig.batch(), completes);
    assert_eq!((batch.took, batch.back.len()), (seconds(300), 0));
    assert!(matches!(rig.entry(&mug).await.state, State::Failed(_)));
    assert_eq!(rig.result(&mug).await, Some(completed));
}

#[tokio::test(start_paused = true)]
async fn two_rows_with_one_request_share_the_outcome() {
    let (rig, first, second) = (Rig::new(), message(1, "mug"), message(2, "mug"));
    rig.send(&[first.clone(), second.clone()]).await;
    assert_eq!(rig.batch().await.back, ["m2"], "one calls, the other comes back");
    rig.drain().await;
    let (first, second) = (rig.completed(&first).await, rig.completed(&second).await);
    assert_eq!(rig.calls().len(), 1);
    assert_eq!((first.attempts, first.reused, second.attempts, second.reused), (1, false, 0, true));
    assert_eq!((first.request_id, first.image_urls), (second.request_id, second.image_urls));
}

#[tokio::test(start_paused = true)]
async fn two_rows_with_one_request_share_the_failure() {
    for (answers, calls) in [(vec![status(400, None)], 1), (vec![unknown("timeout", None); 2], 2)] {
        let (rig, first, second) = (Rig::new(), message(1, "mug"), message(2, "mug"));
        rig.script("mug", answers);
        rig.run(&[first.clone(), second.clone()]).await;
        let (first, second) = (rig.failed(&first).await, rig.failed(&second).await);
        assert_eq!(rig.calls().len(), calls);
        // Whoever made the last call has the attempts.
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
        // The rows of one job share whatever is configured.
        (0, 0, true, 1),
        (30, 31, true, 1),
    ] {
        let rig = Rig::with(|settings| settings.reuse = seconds(reuse_days * DAY));
        rig.run(&[message(1, "mug")]).await;
        sleep(seconds(passed_days * DAY)).await;
        let later = in_job(if same_job { "a" } else { "b" }, 2, "mug");
        rig.run(std::slice::from_ref(&later)).await;
        assert_eq!(rig.calls().len(), calls, "{reuse_days} {passed_days} {same_job}");
        let completed = rig.completed(&later).await;
        assert_eq!((completed.reused, completed.attempts as usize), (calls == 1, calls - 1));
    }
}

#[tokio::test(start_paused = true)]
async fn another_jobs_failure_is_not_reused() {
    let rig = Rig::new();
    rig.script("mug", vec![unknown("timeout", None); 2]);
    let (first, second) = (message(1, "mug"), in_job("b", 1, "mug"));
    rig.run(std::slice::from_ref(&first)).await;
    rig.run(std::slice::from_ref(&second)).await;
    rig.failed(&first).await;
    let completed = rig.completed(&second).await;
    assert_eq!((completed.attempts, completed.unknown_outcomes), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dead_claim_is_an_unknown_outcome_and_counted() {
    for (retries, deaths, code) in [
        (0, 1, Some("outcome_unknown")),
        (1, 1, None),
        (1, 2, Some("outcome_unknown")),
        (2, 2, None),
        (2, 3, Some("outcome_unknown")),
    ] {
        let (rig, mug) = (Rig::with(|settings| settings.unknown_outcome_retries = retries), message(1, "mug"));
        rig.send(std::slice::from_ref(&mug)).await;
        for _ in 0..deaths {
            rig.batch_killed_after(seconds(10)).await;
            sleep(VISIBILITY).await;
        }
        rig.drain().await;
        let (calls, counts) = match code {
            None => {
                let completed = rig.completed(&mug).await;
                (deaths + 1, (completed.attempts, completed.unknown_outcomes))
            }
            Some(code) => {
                let failed = rig.failed(&mug).await;
                assert_eq!((failed.error_code.as_str(), failed.error_class), (code, ErrorClass::Unknown));
                (deaths, (failed.attempts, failed.unknown_outcomes))
            }
        };
        assert_eq!((rig.calls().len() as u32, counts), (calls, (calls, deaths)), "{retries} {deaths}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_redriven_unknown_outcome_is_called_for_again() {
    let (rig, mug) = (Rig::with(|settings| settings.unknown_outcome_retries = 0), message(1, "mug"));
    rig.script("mug", [unknown("connection_lost", None)]);
    rig.run(std::slice::from_ref(&mug)).await;
    assert_eq!(rig.calls().len(), 1, "not without a person");
    rig.retry.redrive_to(&rig.rows);
    rig.drain().await;
    let completed = rig.completed(&mug).await;
    assert_eq!((completed.attempts, completed.unknown_outcomes), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_live_claim_sends_the_message_back() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.send(std::slice::from_ref(&mug)).await;
    rig.batch_killed_after(seconds(10)).await;
    rig.send(std::slice::from_ref(&mug)).await;
    // The lease is the request timeout and a minute.
    let mut passed = seconds(10);
    while rig.calls().len() == 1 {
        let batch = rig.batch_within(seconds(600)).await;
        if rig.calls().len() == 1 {
            assert_eq!((batch.back, batch.took.as_secs()), (vec!["m2".to_owned()], 0));
            let wait = rig.until_visible().await;
            assert!(wait <= seconds(15) * 5 / 4, "{wait:?}");
            passed += wait;
        }
    }
    assert!((seconds(360)..seconds(380)).contains(&passed), "{passed:?}");
    assert_eq!(rig.completed(&mug).await.unknown_outcomes, 1);
}

#[tokio::test(start_paused = true)]
async fn the_sole_worker_waits_for_no_lease_but_its_own() {
    let (killed, mug) = (Rig::with(|settings| settings.sole_worker = true), message(1, "mug"));
    killed.send(std::slice::from_ref(&mug)).await;
    killed.batch_killed_after(seconds(10)).await;
    let next = killed.beside();
    let started = tokio::time::Instant::now();
    next.send(&[mug.clone(), message(2, "mug")]).await;
    assert_eq!(next.batch().await.back.len(), 1, "its own claim is alive");
    assert!(next.calls()[1].at - started < seconds(1));
    assert_eq!(next.completed(&mug).await.unknown_outcomes, 1, "yet it is counted");
}

#[tokio::test(start_paused = true)]
async fn a_released_claim_of_a_dead_worker_is_no_unknown_outcome() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.script("mug", [status(500, None)]);
    rig.put_entry(&Entry::new(mug.fingerprint.clone(), Series { job: mug.job.clone(), round: 0 })).await;
    rig.run(std::slice::from_ref(&mug)).await;
    let completed = rig.completed(&mug).await;
    assert_eq!((completed.attempts, completed.unknown_outcomes), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_ledger_object_that_is_not_understood_fails_the_row() {
    let mug = message(1, "mug");
    let entry = Entry::new(mug.fingerprint.clone(), Series { job: mug.job.clone(), round: 0 });
    let other = Entry { fingerprint: message(1, "bag").fingerprint, ..entry.clone() };
    let newer = Entry { v: 2, ..entry };
    for (object, says) in [
        (b"not ours".to_vec(), "expected"),
        (b"".to_vec(), "EOF"),
        (b"{\"v\":2,\"shape\":\"unheard of\"}".to_vec(), "version 2"),
        (json::to_vec(&newer), "version 2"),
        (json::to_vec(&other), "another fingerprint"),
    ] {
        let rig = Rig::new();
        let key = keys::ledger(&mug.fingerprint);
        rig.put(&key, object.clone()).await;
        rig.run(std::slice::from_ref(&mug)).await;
        let failed = rig.failed(&mug).await;
        assert_eq!((failed.error_code.as_str(), failed.attempts), ("ledger_unreadable", 0));
        assert!(failed.error.contains(says) && failed.error.contains(&key), "{}", failed.error);
        assert_eq!((rig.calls().len(), rig.read(&key).await), (0, Some(Bytes::from(object))), "not touched");
        assert_eq!(rig.retried()[0].0, "ledger_unreadable");
        // As the sentence says: move it away, then redrive.
        rig.put_entry(&Entry::new(mug.fingerprint.clone(), Series { job: mug.job.clone(), round: 0 })).await;
        rig.retry.redrive_to(&rig.rows);
        rig.drain().await;
        rig.completed(&mug).await;
    }
}

/// A worker that sleeps through its lease, and wakes with an outcome while another calls.
#[tokio::test(start_paused = true)]
async fn a_late_outcome_is_kept_and_the_row_ends_once() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    let expired = Claim {
        nonce: "theirs".into(),
        worker: "other".into(),
        at: rig.ports.clock.now() - seconds(400),
        until: rig.ports.clock.now() - seconds(1),
    };
    let mut entry = Entry::new(mug.fingerprint.clone(), Series { job: mug.job.clone(), round: 0 });
    entry.calls = 1;
    entry.state = State::Claimed(expired);
    rig.put_entry(&entry).await;
    rig.send(std::slice::from_ref(&mug)).await;
    let elsewhere = Rig::new();
    elsewhere.run(std::slice::from_ref(&mug)).await;
    let State::Completed(mut outcome) = elsewhere.entry(&mug).await.state else { panic!("not completed") };
    outcome.request_id = Some("late".into());
    let wakes = async {
        sleep(seconds(5)).await;
        let current = rig.entry(&mug).await;
        assert_eq!(current.unknown, 1, "the dead claim is counted before the call");
        rig.put_entry(&Entry { state: State::Completed(outcome), ..current }).await;
    };
    let (batch, ()) = tokio::join!(rig.batch(), wakes);
    assert_eq!(batch.back.len(), 0);
    let completed = rig.completed(&mug).await;
    assert_eq!((completed.request_id.as_deref(), completed.attempts), (Some("late"), 2));
    assert_eq!(completed.unknown_outcomes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_meets_its_own_success_is_recognised() {
    let conflict = StoreError::Conflict { key: "ledger".into() };
    let unknown = StoreError::Unknown { detail: "no answer".into() };
    let script = [status(500, None), status(429, None)];
    // Claim, release, claim, release, claim, outcome.
    for number in 0..6 {
        for answer in [conflict.clone(), unknown.clone()] {
            let (mut rig, mug) = (Rig::new(), message(1, "mug"));
            rig.script("mug", script.clone());
            let lossy = LosesAnswer::over(&mut rig, number, answer, Effect::AtOnce);
            rig.send(std::slice::from_ref(&mug)).await;
            assert_eq!(rig.batch().await.back, Vec::<String>::new());
            let completed = rig.completed(&mug).await;
            assert_eq!((rig.calls().len(), completed.attempts, completed.unknown_outcomes), (3, 2, 0), "{number}");
            assert_eq!(lossy.writes(), 6, "no write is repeated");
        }
    }
}

const BREAKER: &str = "GET control";

/// Takes down what is asked of the store, as `GET ledger` or `PUT results refused`.
struct Noting {
    store: Arc<dyn Store>,
    requests: Mutex<Vec<String>>,
}

impl Noting {
    fn over(rig: &mut Rig) -> Arc<Self> {
        let noting = Arc::new(Self { store: rig.ports.store.clone(), requests: Mutex::default() });
        rig.ports.store = noting.clone();
        noting
    }

    fn note(&self, what: &str, key: &str, refused: bool) {
        let (prefix, _) = key.split_once('/').unwrap();
        let refused = if refused { " refused" } else { "" };
        self.requests.lock().unwrap().push(format!("{what} {prefix}{refused}"));
    }

    /// Since the last time, but for looks at the breaker.
    fn take(&self) -> Vec<String> {
        let mut requests = std::mem::take(&mut *self.requests.lock().unwrap());
        requests.retain(|request| request != BREAKER);
        requests
    }

    /// Looks at the breaker since the last time.
    fn looks(&self) -> usize {
        self.requests.lock().unwrap().drain(..).filter(|request| request == BREAKER).count()
    }
}

#[async_trait]
impl Store for Noting {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.note("HEAD", key, false);
        self.store.head(key).await
    }

    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        self.note("GET", key, false);
        self.store.open(key, version).await
    }

    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
        let done = self.store.put(key, body, precondition).await;
        self.note("PUT", key, done.is_err());
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
    const AGAIN: [&str; 3] = ["GET results", "GET ledger", "PUT results"];
    const NEW_AFTER_AGAIN: [&str; 5] = ["GET results", "GET ledger", "PUT ledger", "PUT ledger", "PUT results"];
    let mut rig = Rig::new();
    let noting = Noting::over(&mut rig);
    let (mug, bag, hat, cup) = (message(1, "mug"), message(2, "bag"), message(3, "hat"), message(4, "cup"));
    for new in [&mug, &bag] {
        rig.run(std::slice::from_ref(new)).await;
        assert_eq!(noting.take(), NEW);
    }
    // The catalog is dropped again: one wrong guess, then no more of them until a new row is met.
    rig.run(&[in_job("b", 1, "mug")]).await;
    assert_eq!(noting.take(), ["PUT ledger refused", "GET ledger", "GET results", "PUT results"]);
    rig.run(&[in_job("b", 2, "bag")]).await;
    assert_eq!(noting.take(), AGAIN);
    rig.run(&[hat]).await;
    assert_eq!(noting.take(), NEW_AFTER_AGAIN);
    rig.run(&[cup]).await;
    assert_eq!(noting.take(), NEW);
    assert_eq!(rig.calls().len(), 4);
    // A row that a person asks for again has a history.
    rig.run(&[again(&mug)]).await;
    assert_eq!(noting.take(), ["GET results", "GET ledger"]);
}

#[tokio::test(start_paused = true)]
async fn one_row_of_a_batch_looks_at_the_breaker_for_all() {
    let mut rig = Rig::new();
    let noting = Noting::over(&mut rig);
    let products: Vec<_> = (1..=10).map(|row| message(row, &format!("product {row}"))).collect();
    rig.send(&products).await;
    rig.batch().await;
    assert_eq!((rig.calls().len(), noting.looks()), (10, 1));
    // The calls took longer than a look is good for.
    rig.send(&[message(11, "mug"), message(12, "bag")]).await;
    rig.batch().await;
    assert_eq!((rig.calls().len(), noting.looks()), (12, 1));
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_call_ends_while_the_account_cannot_pay() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.run(std::slice::from_ref(&mug)).await;
    rig.script("bag", [status(402, None)]);
    rig.send(&[message(2, "bag")]).await;
    rig.batch().await;
    // By this process, which has seen the breaker open, and by one that has not.
    for rig in [rig.beside(), rig] {
        let reused = in_job("b", 1, "mug");
        rig.send(&[mug.clone(), reused.clone()]).await;
        assert_eq!(rig.batch().await.back, Vec::<String>::new());
        assert!(rig.completed(&reused).await.reused);
        assert_eq!(rig.calls().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_call_does_not_wait_for_the_rate() {
    let rig = Rig::with(|settings| settings.requests_per_minute = NonZeroU32::new(1));
    rig.run(&[message(1, "mug"), message(2, "bag"), message(3, "hat")]).await;
    let another = rig.beside();
    another.send(&[in_job("b", 1, "mug"), in_job("b", 2, "bag"), in_job("b", 3, "hat")]).await;
    assert_eq!(another.batch().await, Batch { took: Duration::ZERO, back: vec![] });
    assert_eq!(rig.calls().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_read_is_written_anew() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.put(&keys::result(&mug.job, 1, &mug.sku), "half a li").await;
    rig.run(std::slice::from_ref(&mug)).await;
    assert!(matches!(rig.result(&mug).await, Some(RowResult::Completed(_))));
}
