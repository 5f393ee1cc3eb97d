//! The account breaker and the guardrail: an account that cannot pay stops all calls, and a job that mostly fails is stopped.

use jiff::SignedDuration;
use packshot_pipeline::{
    generate::breaker::BreakerFile,
    ledger::RetryUsage,
    model::{error_class::ErrorClass, keys, message::RowMessage},
    ports::ApiError,
    settings::AccountPolicy,
};
use tokio::time::sleep;

use crate::harness::{Answer, Harness, job, message, seconds, status};

fn insufficient_quota() -> Answer {
    status(402, Some("insufficient_quota"))
}

fn account_errors() -> Vec<Answer> {
    vec![
        insufficient_quota(),
        status(429, Some("insufficient_quota")),
        status(400, Some("billing_hard_limit_reached")),
        status(401, None),
        status(402, None),
        status(403, None),
        status(302, None),
        Answer::Error(ApiError::Misconfigured { detail: "no key".into() }),
    ]
}

async fn breaker(harness: &Harness) -> BreakerFile {
    serde_json::from_slice(&harness.read(keys::BREAKER).await.unwrap()).unwrap()
}

fn products(rows: std::ops::RangeInclusive<u64>) -> Vec<RowMessage> {
    rows.map(|row| message(row, &format!("product {row}"))).collect()
}

#[tokio::test(start_paused = true)]
async fn an_account_error_stops_everything_and_fails_nothing() {
    let cases = account_errors().into_iter().flat_map(|answer| [(answer.clone(), false), (answer, true)]);
    for (answer, elsewhere) in cases {
        let harness = Harness::new();
        harness.answer_all(Some(answer));
        let messages = products(1..=3);
        harness.send(&messages).await;
        assert_eq!(harness.batch().await.back.len(), 3);
        let file = breaker(&harness).await;
        assert!(file.open && !file.reason.is_empty() && !file.code.is_empty(), "{file:?}");
        assert_eq!(file.next_probe.duration_since(file.since), SignedDuration::from_secs(60));
        for message in &messages {
            assert_eq!(harness.result(message).await, None);
            let entry = harness.entry(message).await;
            assert_eq!((entry.calls, entry.unknown, entry.spent), (0, 0, RetryUsage::default()));
        }

        // Neither this process nor a new one calls.
        assert_eq!(harness.calls().len(), 3);
        let process = if elsewhere { harness.another_process() } else { harness };
        process.send(&[message(9, "new")]).await;
        assert_eq!(process.batch().await.back.len(), 1);
        assert_eq!((process.calls().len(), process.retry.len()), (3, 0));
        assert!(process.until_visible().await >= seconds(59), "a long visibility timeout");
    }
}

#[tokio::test(start_paused = true)]
async fn one_probe_at_a_time_until_everything_resumes() {
    let harness = Harness::new();
    harness.answer_all(Some(insufficient_quota()));
    let messages = products(1..=8);
    harness.send(&messages).await;
    harness.batch().await;
    let first_calls = harness.calls().len();
    let opened = harness.calls()[0].at;

    // Two processes, for ten minutes, on an account that stays empty.
    let other = harness.another_process();
    while opened.elapsed() < seconds(600) {
        harness.until_visible().await;
        for harness in [&harness, &other] {
            if harness.depth().visible > 0 {
                harness.batch().await;
            }
        }
    }
    let probes: Vec<_> = harness.calls()[first_calls..].iter().map(|call| call.at).collect();
    assert!(probes.len() >= 3, "{} probes in ten minutes", probes.len());
    let mut since = opened;
    for (probe, pause) in probes.iter().zip([60, 60, 120, 240, 480]) {
        assert!(*probe - since >= seconds(pause), "{:?} after {:?}", *probe - opened, since - opened);
        since = *probe;
    }
    assert_eq!(breaker(&harness).await.probes as usize, probes.len());
    assert!(
        harness.retry.is_empty() && harness.depth().visible + harness.depth().delayed + harness.depth().in_flight == 8
    );

    // The balance is topped up: the next probe succeeds, and no other row calls during the probe.
    harness.answer_all(None);
    let before = harness.calls().len();
    while harness.calls().len() == before {
        harness.until_visible().await;
        let during_probe = async {
            sleep(seconds(1)).await;
            if harness.calls().len() > before {
                other.send(&[message(9, "late")]).await;
                assert_eq!(other.batch().await.took, seconds(0));
                assert_eq!(harness.calls().len(), before + 1, "another row called during the probe");
            }
        };
        tokio::join!(harness.batch(), during_probe);
    }
    assert!(!breaker(&harness).await.open);
    harness.drain().await;
    assert_eq!(harness.calls().len(), before + 9);
    for message in &messages {
        let completed = harness.completed(message).await;
        assert_eq!((completed.attempts, completed.unknown_outcomes), (1, 0), "an empty balance uses up no attempts");
    }
}

/// An answer that rejects the row of the probe shows that the account can pay.
#[tokio::test(start_paused = true)]
async fn a_rejected_row_is_a_good_probe() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    harness.script("mug", [insufficient_quota(), status(400, None)]);
    harness.send(std::slice::from_ref(&mug)).await;
    harness.drain().await;
    assert_eq!((harness.calls().len(), breaker(&harness).await.open), (2, false));
    harness.failed(&mug).await;
}

/// After a worker died during its probe, another worker probes.
#[tokio::test(start_paused = true)]
async fn a_lost_probe_is_followed_by_another() {
    let harness = Harness::new();
    harness.script("mug", [insufficient_quota()]);
    harness.send(&[message(1, "mug"), message(2, "bag")]).await;
    harness.script("bag", [insufficient_quota()]);
    harness.batch().await;
    harness.until_visible().await;
    harness.batch_killed_after(seconds(10)).await;
    let probed = harness.calls().last().unwrap().at;
    harness.drain().await;
    assert!(!breaker(&harness).await.open);
    let next = harness.calls()[3].at - probed;
    assert!((seconds(360)..seconds(600)).contains(&next), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_needs_no_call_does_not_use_up_the_probe() {
    let harness = Harness::new();
    harness.run(&[message(1, "mug")]).await;
    harness.script("bag", [insufficient_quota()]);
    harness.send(&[message(2, "bag")]).await;
    harness.batch().await;
    harness.until_visible().await;
    // A process that has not read the open breaker yet receives rows that are not new.
    let another = harness.another_process();
    another.send(&[message(1, "mug")]).await;
    assert_eq!(another.batch().await.back, Vec::<String>::new());
    assert_eq!(
        (harness.calls().len(), breaker(&harness).await.open),
        (3, false),
        "the row that was delivered again was the probe"
    );
}

#[tokio::test(start_paused = true)]
async fn with_the_policy_fail_each_row_fails() {
    for answer in account_errors() {
        let harness = Harness::with(|settings| settings.account_errors = AccountPolicy::Fail);
        harness.answer_all(Some(answer));
        let messages = products(1..=2);
        harness.send(&messages).await;
        assert_eq!(harness.batch().await.back, Vec::<String>::new());
        assert_eq!((harness.calls().len(), harness.read(keys::BREAKER).await), (2, None));
        for (message, (code, class, retried)) in messages.iter().zip(harness.retried()) {
            let failed = harness.failed(message).await;
            assert_eq!((failed.error_class, failed.attempts), (ErrorClass::Account, 1));
            assert_eq!((failed.error_code, "account", retried.round), (code, class.as_str(), 1));
        }
        assert_eq!(harness.retried().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_mostly_fails_is_stopped() {
    let harness = Harness::with(|settings| settings.max_failed_percent = Some(50));
    harness.answer_all(Some(status(400, None)));
    let messages = products(1..=30);
    harness.run(&messages[..20]).await;
    assert_eq!(harness.calls().len(), 20, "a decision needs at least twenty rows");
    // Neither this process nor another one calls, although the API would succeed now.
    harness.answer_all(None);
    harness.run(&messages[20..25]).await;
    harness.another_process().run(&messages[25..]).await;
    assert_eq!(harness.calls().len(), 20);
    for message in &messages[20..] {
        let failed = harness.failed(message).await;
        assert_eq!(
            (failed.error_code.as_str(), failed.error_class, failed.attempts),
            ("aborted", ErrorClass::Aborted, 0)
        );
        assert!(failed.error.contains("20 of 20 rows failed, more than 50 %"), "{}", failed.error);
    }
    assert_eq!(harness.retried().len(), 10);

    // Another job is not stopped, and neither is a redrive.
    let other: Vec<_> = products(31..=32).into_iter().map(|m| RowMessage { job: job("b"), ..m }).collect();
    harness.run(&other).await;
    harness.retry.redrive_to(&harness.rows);
    harness.drain().await;
    assert_eq!(harness.calls().len(), 20 + 2 + 10);
    for message in messages[20..].iter().chain(&other) {
        harness.completed(message).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_below_the_failure_limit_is_not_stopped() {
    let harness = Harness::with(|settings| settings.max_failed_percent = Some(50));
    let messages = products(1..=40);
    for row in (1..=40).step_by(4) {
        harness.script(&format!("product {row}"), [status(400, None)]);
    }
    harness.run(&messages).await;
    assert_eq!(harness.calls().len(), 40);
    assert_eq!(harness.read(&keys::abort(&messages[0].job)).await, None);
}
