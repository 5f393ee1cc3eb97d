//! An account that cannot pay, and a job that mostly fails.

use jiff::SignedDuration;
use packshot_pipeline::{
    generate::breaker::BreakerFile,
    ledger::Spent,
    model::{error_class::ErrorClass, keys, message::RowMessage},
    ports::ApiError,
    settings::AccountPolicy,
};
use tokio::time::sleep;

use crate::rig::{Answer, Rig, job, message, seconds, status};

fn broke() -> Answer {
    status(402, Some("insufficient_quota"))
}

fn account_errors() -> Vec<Answer> {
    vec![
        broke(),
        status(429, Some("insufficient_quota")),
        status(400, Some("billing_hard_limit_reached")),
        status(401, None),
        status(402, None),
        status(403, None),
        status(302, None),
        Answer::Error(ApiError::Misconfigured { detail: "no key".into() }),
    ]
}

async fn breaker(rig: &Rig) -> BreakerFile {
    serde_json::from_slice(&rig.read(keys::BREAKER).await.unwrap()).unwrap()
}

fn products(rows: std::ops::RangeInclusive<u64>) -> Vec<RowMessage> {
    rows.map(|row| message(row, &format!("product {row}"))).collect()
}

#[tokio::test(start_paused = true)]
async fn an_account_error_stops_everything_and_fails_nothing() {
    let cases = account_errors().into_iter().flat_map(|answer| [(answer.clone(), false), (answer, true)]);
    for (answer, elsewhere) in cases {
        let rig = Rig::new();
        rig.answer_all(Some(answer));
        let messages = products(1..=3);
        rig.send(&messages).await;
        assert_eq!(rig.batch().await.back.len(), 3);
        let file = breaker(&rig).await;
        assert!(file.open && !file.reason.is_empty() && !file.code.is_empty(), "{file:?}");
        assert_eq!(file.next_probe.duration_since(file.since), SignedDuration::from_secs(60));
        for message in &messages {
            assert_eq!(rig.result(message).await, None);
            let entry = rig.entry(message).await;
            assert_eq!((entry.calls, entry.unknown, entry.spent), (0, 0, Spent::default()));
        }

        // Neither this process calls nor one that has just begun.
        assert_eq!(rig.calls().len(), 3);
        let process = if elsewhere { rig.beside() } else { rig };
        process.send(&[message(9, "new")]).await;
        assert_eq!(process.batch().await.back.len(), 1);
        assert_eq!((process.calls().len(), process.retry.len()), (3, 0));
        assert!(process.until_visible().await >= seconds(59), "with a long visibility");
    }
}

#[tokio::test(start_paused = true)]
async fn one_probe_at_a_time_until_everything_resumes() {
    let rig = Rig::new();
    rig.answer_all(Some(broke()));
    let messages = products(1..=8);
    rig.send(&messages).await;
    rig.batch().await;
    let burnt = rig.calls().len();
    let opened = rig.calls()[0].at;

    // Two processes, for ten minutes, on an account that stays empty.
    let other = rig.beside();
    while opened.elapsed() < seconds(600) {
        rig.until_visible().await;
        for rig in [&rig, &other] {
            if rig.depth().visible > 0 {
                rig.batch().await;
            }
        }
    }
    let probes: Vec<_> = rig.calls()[burnt..].iter().map(|call| call.at).collect();
    assert!(probes.len() >= 3, "{} probes in ten minutes", probes.len());
    let mut since = opened;
    for (probe, pause) in probes.iter().zip([60, 60, 120, 240, 480]) {
        assert!(*probe - since >= seconds(pause), "{:?} after {:?}", *probe - opened, since - opened);
        since = *probe;
    }
    assert_eq!(breaker(&rig).await.probes as usize, probes.len());
    assert!(rig.retry.is_empty() && rig.depth().visible + rig.depth().delayed + rig.depth().in_flight == 8);

    // The balance is filled up: the next probe finds out, and nobody calls beside it.
    rig.answer_all(None);
    let before = rig.calls().len();
    while rig.calls().len() == before {
        rig.until_visible().await;
        let beside = async {
            sleep(seconds(1)).await;
            if rig.calls().len() > before {
                other.send(&[message(9, "late")]).await;
                assert_eq!(other.batch().await.took, seconds(0));
                assert_eq!(rig.calls().len(), before + 1, "somebody called beside the probe");
            }
        };
        tokio::join!(rig.batch(), beside);
    }
    assert!(!breaker(&rig).await.open);
    rig.drain().await;
    assert_eq!(rig.calls().len(), before + 9);
    for message in &messages {
        let completed = rig.completed(message).await;
        assert_eq!(
            (completed.attempts, completed.unknown_outcomes),
            (1, 0),
            "an empty balance uses up nobody's attempts"
        );
    }
}

/// A probe that answers about its own row says that the account is well.
#[tokio::test(start_paused = true)]
async fn a_rejected_row_is_a_good_probe() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.script("mug", [broke(), status(400, None)]);
    rig.send(std::slice::from_ref(&mug)).await;
    rig.drain().await;
    assert_eq!((rig.calls().len(), breaker(&rig).await.open), (2, false));
    rig.failed(&mug).await;
}

/// A worker that died during its probe does not keep everybody waiting for ever.
#[tokio::test(start_paused = true)]
async fn a_lost_probe_is_followed_by_another() {
    let rig = Rig::new();
    rig.script("mug", [broke()]);
    rig.send(&[message(1, "mug"), message(2, "bag")]).await;
    rig.script("bag", [broke()]);
    rig.batch().await;
    rig.until_visible().await;
    rig.batch_killed_after(seconds(10)).await;
    let probed = rig.calls().last().unwrap().at;
    rig.drain().await;
    assert!(!breaker(&rig).await.open);
    let next = rig.calls()[3].at - probed;
    assert!((seconds(360)..seconds(600)).contains(&next), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_needs_no_call_does_not_use_up_the_probe() {
    let rig = Rig::new();
    rig.run(&[message(1, "mug")]).await;
    rig.script("bag", [broke()]);
    rig.send(&[message(2, "bag")]).await;
    rig.batch().await;
    rig.until_visible().await;
    // To a process that has not seen the breaker open yet, some rows come that are not new.
    let another = rig.beside();
    another.send(&[message(1, "mug")]).await;
    assert_eq!(another.batch().await.back, Vec::<String>::new());
    assert_eq!((rig.calls().len(), breaker(&rig).await.open), (3, false), "the row that came back was the probe");
}

#[tokio::test(start_paused = true)]
async fn with_the_policy_fail_each_row_fails() {
    for answer in account_errors() {
        let rig = Rig::with(|settings| settings.account_errors = AccountPolicy::Fail);
        rig.answer_all(Some(answer));
        let messages = products(1..=2);
        rig.send(&messages).await;
        assert_eq!(rig.batch().await.back, Vec::<String>::new());
        assert_eq!((rig.calls().len(), rig.read(keys::BREAKER).await), (2, None));
        for (message, (code, class, retried)) in messages.iter().zip(rig.retried()) {
            let failed = rig.failed(message).await;
            assert_eq!((failed.error_class, failed.attempts), (ErrorClass::Account, 1));
            assert_eq!((failed.error_code, "account", retried.round), (code, class.as_str(), 1));
        }
        assert_eq!(rig.retried().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_mostly_fails_is_stopped() {
    let rig = Rig::with(|settings| settings.max_failed_percent = Some(50));
    rig.answer_all(Some(status(400, None)));
    let messages = products(1..=30);
    rig.run(&messages[..20]).await;
    assert_eq!(rig.calls().len(), 20, "twenty rows are the least that says something");
    // Neither this process nor another, whatever the API would answer by now.
    rig.answer_all(None);
    rig.run(&messages[20..25]).await;
    rig.beside().run(&messages[25..]).await;
    assert_eq!(rig.calls().len(), 20);
    for message in &messages[20..] {
        let failed = rig.failed(message).await;
        assert_eq!(
            (failed.error_code.as_str(), failed.error_class, failed.attempts),
            ("aborted", ErrorClass::Aborted, 0)
        );
        assert!(failed.error.contains("20 of 20 rows failed, more than 50 %"), "{}", failed.error);
    }
    assert_eq!(rig.retried().len(), 10);

    // Another job is another matter, and so is a redrive.
    let other: Vec<_> = products(31..=32).into_iter().map(|m| RowMessage { job: job("b"), ..m }).collect();
    rig.run(&other).await;
    rig.retry.redrive_to(&rig.rows);
    rig.drain().await;
    assert_eq!(rig.calls().len(), 20 + 2 + 10);
    for message in messages[20..].iter().chain(&other) {
        rig.completed(message).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_no_more_than_allowed_goes_on() {
    let rig = Rig::with(|settings| settings.max_failed_percent = Some(50));
    let messages = products(1..=40);
    for row in (1..=40).step_by(4) {
        rig.script(&format!("product {row}"), [status(400, None)]);
    }
    rig.run(&messages).await;
    assert_eq!(rig.calls().len(), 40);
    assert_eq!(rig.read(&keys::abort(&messages[0].job)).await, None);
}
