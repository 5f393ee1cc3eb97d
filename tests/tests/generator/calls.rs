//! What follows from each answer of the API.

use std::{num::NonZeroU32, time::Duration};

use packshot_pipeline::{
    model::{
        error_class::ErrorClass::{self, Row, Transient, Unknown},
        keys,
    },
    ports::{ApiError, Picture},
};

use crate::rig::{Answer, CALL, INVOCATION, Rig, message, not_sent, retry_after, seconds, status, unknown, urls};

#[tokio::test(start_paused = true)]
async fn every_class_ends_as_the_table_says() {
    // The answer to every call, how many calls there are, how many of them may have been billed, and how the row ends.
    type Case = (Answer, usize, u32, &'static str, ErrorClass, Option<u16>);
    let cases: [Case; 24] = [
        (status(400, None), 1, 0, "http_400", Row, Some(400)),
        (status(404, None), 1, 0, "http_404", Row, Some(404)),
        (status(413, None), 1, 0, "http_413", Row, Some(413)),
        (status(422, None), 1, 0, "http_422", Row, Some(422)),
        (status(418, Some("something new")), 1, 0, "something new", Row, Some(418)),
        (status(403, Some("moderation_blocked")), 1, 0, "moderation_blocked", Row, Some(403)),
        (status(400, Some("content_policy_violation")), 1, 0, "content_policy_violation", Row, Some(400)),
        (status(500, Some("invalid_image_url")), 1, 0, "invalid_image_url", Row, Some(500)),
        (status(429, Some("image_too_large")), 1, 0, "image_too_large", Row, Some(429)),
        (status(408, None), 3, 0, "http_408", Transient, Some(408)),
        (status(409, None), 3, 0, "http_409", Transient, Some(409)),
        (status(425, None), 3, 0, "http_425", Transient, Some(425)),
        (status(500, None), 3, 0, "http_500", Transient, Some(500)),
        (status(502, None), 3, 0, "http_502", Transient, Some(502)),
        (status(599, None), 3, 0, "http_599", Transient, Some(599)),
        (status(400, Some("server_error")), 3, 0, "server_error", Transient, Some(400)),
        (status(503, Some("overloaded")), 3, 0, "overloaded", Transient, Some(503)),
        (not_sent(), 3, 0, "not_reached", Transient, None),
        (unknown("timeout", None), 2, 2, "outcome_unknown", Unknown, None),
        (unknown("connection_lost", None), 2, 2, "outcome_unknown", Unknown, None),
        (Answer::Never, 2, 2, "outcome_unknown", Unknown, None),
        // HTML, a JSON that was cut, and an answer without pictures.
        (unknown("invalid_answer", Some(200)), 2, 2, "invalid_answer", Unknown, Some(200)),
        (unknown("connection_lost", Some(200)), 2, 2, "connection_lost", Unknown, Some(200)),
        (unknown("no_images", Some(200)), 2, 2, "no_images", Unknown, Some(200)),
    ];
    for (answer, calls, billed, code, class, http_status) in cases {
        let (rig, mug) = (Rig::new(), message(1, "mug"));
        rig.answer_all(Some(answer));
        rig.run(std::slice::from_ref(&mug)).await;
        let failed = rig.failed(&mug).await;
        assert_eq!(rig.calls().len(), calls, "{code}");
        assert_eq!((failed.error_code.as_str(), failed.error_class, failed.http_status), (code, class, http_status));
        assert_eq!((failed.attempts as usize, failed.unknown_outcomes), (calls, billed), "{code}");
        assert_eq!((failed.line, &failed.input, failed.reused), (2, &mug.input, false));
        if let Some(number) = http_status.filter(|status| *status != 200) {
            assert_eq!(failed.error, format!("HTTP {number}: no {number}"));
        }
        let retried = rig.retried();
        if class == Row {
            assert_eq!(retried, [], "{code}: the same row would fail again");
        } else {
            let again = packshot_pipeline::model::message::RowMessage { round: 1, ..mug };
            assert_eq!(retried, [(code.to_owned(), class.as_str().to_owned(), again)]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_passing_error_passes() {
    for (retries, errors, completes) in [(2, 2, true), (2, 3, false), (0, 1, false), (5, 5, true)] {
        let (rig, mug) = (Rig::with(|settings| settings.retries = retries), message(1, "mug"));
        rig.script("mug", vec![status(500, None); errors]);
        rig.run(std::slice::from_ref(&mug)).await;
        assert_eq!(rig.calls().len(), errors + usize::from(completes));
        if completes {
            let completed = rig.completed(&mug).await;
            assert_eq!((completed.attempts as usize, completed.unknown_outcomes), (errors + 1, 0));
            assert_eq!(completed.latency_ms, CALL.as_millis() as u64);
        } else {
            assert_eq!(rig.failed(&mug).await.attempts as usize, errors);
        }
        // Exponential, with full jitter.
        for (gap, limit) in rig.gaps().into_iter().zip([2, 4, 8, 16, 30]) {
            assert!(gap <= seconds(limit), "{gap:?} is longer than {limit} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_up_to_the_ceiling() {
    for (asked, waited) in [(7, 7), (60, 60), (61, 60), (1_000_000_000, 60)] {
        for code in [503, 429] {
            let (rig, mug) = (Rig::new(), message(1, "mug"));
            rig.script("mug", [retry_after(code, None, Some(seconds(asked)))]);
            rig.send(&[mug]).await;
            assert_eq!(rig.batch().await.back, Vec::<String>::new(), "it was waited for in the same invocation");
            assert_eq!(rig.gaps(), [seconds(waited)], "{code} with {asked}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_uses_up_no_attempt() {
    let (rig, mug) = (Rig::with(|settings| settings.retries = 0), message(1, "mug"));
    rig.script("mug", vec![status(429, None); 9]);
    rig.run(std::slice::from_ref(&mug)).await;
    assert_eq!(rig.gaps(), [1, 2, 4, 8, 16, 32, 60, 60, 60].map(seconds));
    assert_eq!(rig.completed(&mug).await.attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_429_pauses_the_whole_process() {
    let rig = Rig::with(|settings| settings.requests_per_minute = NonZeroU32::new(60));
    rig.script("mug", [retry_after(429, None, Some(seconds(30)))]);
    rig.run(&[message(1, "mug"), message(2, "bag"), message(3, "cap")]).await;
    let calls = rig.calls();
    assert_eq!(calls.len(), 4);
    assert_eq!(calls[1].at - calls[0].at, seconds(30), "the second row's turn was after a second");
}

#[tokio::test(start_paused = true)]
async fn the_rate_limits_the_starts_of_calls() {
    let rig = Rig::with(|settings| settings.requests_per_minute = NonZeroU32::new(6));
    let messages: Vec<_> = (1..=8).map(|row| message(row, &format!("product {row}"))).collect();
    rig.run(&messages).await;
    assert_eq!(rig.calls().len(), 8);
    // Governor counts in nanoseconds, Tokio sleeps in milliseconds.
    let slack = Duration::from_millis(2);
    assert!(rig.gaps().iter().all(|gap| (seconds(10)..seconds(10) + slack).contains(gap)), "{:?}", rig.gaps());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_wait_within_the_deadline_goes_back() {
    for (code, attempts) in [(429, 1), (503, 2)] {
        let (rig, mug) = (Rig::new(), message(1, "mug"));
        rig.script("mug", [retry_after(code, None, Some(seconds(50)))]);
        rig.send(std::slice::from_ref(&mug)).await;
        let batch = rig.batch_within(seconds(370)).await;
        assert_eq!((batch.back.len(), batch.took), (1, Duration::ZERO), "it does not sleep for nothing");
        assert_eq!(rig.result(&mug).await, None);
        rig.drain().await;
        assert_eq!(rig.completed(&mug).await.attempts, attempts);
        let gap = rig.gaps()[0];
        assert!((seconds(50)..=seconds(63)).contains(&gap), "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_call_is_started_that_cannot_end_before_the_deadline() {
    let (rig, mug) = (Rig::new(), message(1, "mug"));
    rig.send(std::slice::from_ref(&mug)).await;
    let batch = rig.batch_within(seconds(329)).await;
    assert_eq!((batch.back, batch.took), (vec!["m1".to_owned()], Duration::ZERO));
    assert_eq!(rig.calls().len(), 0);
    assert_eq!(rig.read(&keys::ledger(&mug.fingerprint)).await, None, "untouched");
    assert_eq!((rig.depth().delayed, rig.depth().in_flight), (1, 0), "not at the queue's own timeout");
    assert!(rig.until_visible().await <= seconds(2));
    assert_eq!(rig.batch_within(seconds(330)).await.back, Vec::<String>::new());
    rig.completed(&mug).await;
}

#[tokio::test(start_paused = true)]
async fn the_call_is_given_up_after_the_request_timeout() {
    let rig = Rig::with(|settings| {
        settings.request_timeout = seconds(100);
        settings.unknown_outcome_retries = 0;
    });
    let mug = message(1, "mug");
    rig.script("mug", [Answer::Never]);
    rig.send(std::slice::from_ref(&mug)).await;
    assert_eq!(rig.batch().await.took, seconds(100));
    let failed = rig.failed(&mug).await;
    assert_eq!((failed.error_code.as_str(), failed.latency_ms), ("outcome_unknown", Some(100_000)));
    assert!(failed.error.starts_with("no answer within 100 s (the call may have been billed"), "{}", failed.error);
}

#[tokio::test(start_paused = true)]
async fn fewer_pictures_than_asked_are_completed() {
    for (answer, count, short) in [
        (urls(&["https://pictures.test/1"]), 1, true),
        (urls(&["https://pictures.test/1", "https://pictures.test/1"]), 2, false),
        (urls(&["https://pictures.test/1"; 3]), 3, false),
        (Answer::Pictures(vec![]), 0, true),
    ] {
        let (rig, mug) = (Rig::new(), message(1, "mug"));
        rig.script("mug", [answer]);
        rig.run(std::slice::from_ref(&mug)).await;
        let completed = rig.completed(&mug).await;
        assert_eq!((completed.image_count, completed.image_urls.len(), completed.short), (count, count, short));
        assert_eq!(rig.calls().len(), 1, "what is short has been paid for");
    }
}

#[tokio::test(start_paused = true)]
async fn long_errors_are_cut() {
    for error in [
        ApiError::Answered { status: 400, code: None, body: "é".repeat(2_500_000), retry_after: None },
        ApiError::Answered { status: 400, code: Some("é".repeat(2_500_000)), body: String::new(), retry_after: None },
        ApiError::Answered { status: 500, code: Some("é".repeat(2_500_000)), body: String::new(), retry_after: None },
        ApiError::Unknown { code: "invalid_answer", status: Some(200), detail: "é".repeat(2_500_000) },
        ApiError::Answered { status: 402, code: None, body: "é".repeat(2_500_000), retry_after: None },
    ] {
        let (rig, mug) = (Rig::new(), message(1, "mug"));
        rig.script("mug", vec![Answer::Error(error); 3]);
        rig.run(std::slice::from_ref(&mug)).await;
        for key in [keys::result(&mug.job, 1, "SKU-1"), keys::ledger(&mug.fingerprint), keys::BREAKER.to_owned()] {
            let bytes = rig.read(&key).await.unwrap_or_default().len();
            assert!(bytes < 8 * 1024, "{key} has {bytes} bytes");
        }
        for sent in rig.retry.contents() {
            assert!(sent.attributes.values().all(|value| value.len() <= 2 * 1024));
        }
    }
}

/// SQS takes neither an empty attribute nor these characters, and a row that cannot be parked would never end.
#[tokio::test(start_paused = true)]
async fn strange_error_codes_reach_the_retry_queue() {
    for (code, attribute) in [("", "unnamed"), ("\u{1}", "unnamed"), ("a\u{ffff}b\u{fffe}\u{7}", "ab")] {
        let (rig, mug) = (Rig::new(), message(1, "mug"));
        rig.script("mug", vec![status(500, Some(code)); 3]);
        rig.run(std::slice::from_ref(&mug)).await;
        assert_eq!(rig.failed(&mug).await.error_code, code);
        assert_eq!(rig.retried()[0].0, attribute);
    }
}

#[tokio::test(start_paused = true)]
async fn lines_begin_with_the_vendors_fields() {
    let (rig, mug, bag) = (Rig::new(), message(1, "mug"), message(2, "bag"));
    rig.script("mug", [Answer::Pictures(vec![Picture::Url("https://pictures.test/1".into())])]);
    rig.script("bag", [status(400, None)]);
    rig.run(&[mug.clone(), bag.clone()]).await;
    let line = async |message: &packshot_pipeline::model::message::RowMessage| {
        let bytes = rig.read(&keys::result(&message.job, message.row, &message.sku)).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let (completed, failed) = (line(&mug).await, line(&bag).await);
    assert!(
        completed.starts_with(
            r#"{"sku":"SKU-1","status":"completed","image_count":1,"image_urls":["https://pictures.test/1"],"request_id":"call-1","model_actual":null,"row":1,"#
        ),
        "{completed}"
    );
    assert!(failed.starts_with(r#"{"sku":"SKU-2","status":"failed","error":"HTTP 400: no 400","row":2,"#), "{failed}");
    assert!([completed, failed].iter().all(|line| line.ends_with("}\n") && line.lines().count() == 1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_called_for_at_once_under_the_fingerprints() {
    let rig = Rig::new();
    let messages: Vec<_> = (1..=10).map(|row| message(row, &format!("product {row}"))).collect();
    rig.send(&messages).await;
    let batch = rig.batch().await;
    assert_eq!((batch.took, batch.back.len()), (CALL, 0));
    let mut keys: Vec<_> = rig.calls().into_iter().map(|call| call.key).collect();
    keys.sort();
    let mut fingerprints: Vec<_> = messages.iter().map(|message| message.fingerprint.to_string()).collect();
    fingerprints.sort();
    assert_eq!(keys, fingerprints);
    assert!(CALL < INVOCATION);
}
