//! Calls of the images API: what follows from each answer, retries, rate limit, deadlines, and the form of the results.

use std::{num::NonZeroU32, time::Duration};

use packshot_pipeline::{
    model::{
        error_class::ErrorClass::{self, Row, Transient, Unknown},
        keys,
    },
    ports::{ApiError, GeneratedImage},
};

use crate::harness::{
    Answer, CALL, Harness, INVOCATION, message, not_sent, retry_after, seconds, status, unknown, urls,
};

#[tokio::test(start_paused = true)]
async fn every_error_has_its_class_and_its_outcome() {
    // The answer to every call, the number of calls, how many of them may have been billed, and the outcome of the row.
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
        // HTML, a truncated JSON, and an answer without images.
        (unknown("invalid_answer", Some(200)), 2, 2, "invalid_answer", Unknown, Some(200)),
        (unknown("connection_lost", Some(200)), 2, 2, "connection_lost", Unknown, Some(200)),
        (unknown("no_images", Some(200)), 2, 2, "no_images", Unknown, Some(200)),
    ];
    for (answer, calls, billed, code, class, http_status) in cases {
        let (harness, mug) = (Harness::new(), message(1, "mug"));
        harness.answer_all(Some(answer));
        harness.run(std::slice::from_ref(&mug)).await;
        let failed = harness.failed(&mug).await;
        assert_eq!(harness.calls().len(), calls, "{code}");
        assert_eq!((failed.error_code.as_str(), failed.error_class, failed.http_status), (code, class, http_status));
        assert_eq!((failed.attempts as usize, failed.unknown_outcomes), (calls, billed), "{code}");
        assert_eq!((failed.line, &failed.input, failed.reused), (2, &mug.input, false));
        if let Some(number) = http_status.filter(|status| *status != 200) {
            assert_eq!(failed.error, format!("HTTP {number}: no {number}"));
        }
        let retried = harness.retried();
        if class == Row {
            assert_eq!(retried, [], "{code}: the same row would fail again");
        } else {
            let again = packshot_pipeline::model::message::RowMessage { round: 1, ..mug };
            assert_eq!(retried, [(code.to_owned(), class.as_str().to_owned(), again)]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_transient_error_is_retried() {
    for (retries, errors, completes) in [(2, 2, true), (2, 3, false), (0, 1, false), (5, 5, true)] {
        let (harness, mug) = (Harness::with(|settings| settings.retries = retries), message(1, "mug"));
        harness.script("mug", vec![status(500, None); errors]);
        harness.run(std::slice::from_ref(&mug)).await;
        assert_eq!(harness.calls().len(), errors + usize::from(completes));
        if completes {
            let completed = harness.completed(&mug).await;
            assert_eq!((completed.attempts as usize, completed.unknown_outcomes), (errors + 1, 0));
            assert_eq!(completed.latency_ms, CALL.as_millis() as u64);
        } else {
            assert_eq!(harness.failed(&mug).await.attempts as usize, errors);
        }
        // Exponential, with full jitter.
        for (gap, limit) in harness.gaps().into_iter().zip([2, 4, 8, 16, 30]) {
            assert!(gap <= seconds(limit), "{gap:?} is longer than {limit} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_up_to_its_limit() {
    for (asked, waited) in [(7, 7), (60, 60), (61, 60), (1_000_000_000, 60)] {
        for code in [503, 429] {
            let (harness, mug) = (Harness::new(), message(1, "mug"));
            harness.script("mug", [retry_after(code, None, Some(seconds(asked)))]);
            harness.send(&[mug]).await;
            assert_eq!(harness.batch().await.back, Vec::<String>::new(), "the wait is in the same invocation");
            assert_eq!(harness.gaps(), [seconds(waited)], "{code} with {asked}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_uses_up_no_attempt() {
    let (harness, mug) = (Harness::with(|settings| settings.retries = 0), message(1, "mug"));
    harness.script("mug", vec![status(429, None); 9]);
    harness.run(std::slice::from_ref(&mug)).await;
    assert_eq!(harness.gaps(), [1, 2, 4, 8, 16, 32, 60, 60, 60].map(seconds));
    assert_eq!(harness.completed(&mug).await.attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_429_pauses_the_whole_process() {
    let harness = Harness::with(|settings| settings.requests_per_minute = NonZeroU32::new(60));
    harness.script("mug", [retry_after(429, None, Some(seconds(30)))]);
    harness.run(&[message(1, "mug"), message(2, "bag"), message(3, "cap")]).await;
    let calls = harness.calls();
    assert_eq!(calls.len(), 4);
    assert_eq!(
        calls[1].at - calls[0].at,
        seconds(30),
        "without the pause the second row would have called after a second"
    );
}

#[tokio::test(start_paused = true)]
async fn the_rate_limits_the_starts_of_calls() {
    let harness = Harness::with(|settings| settings.requests_per_minute = NonZeroU32::new(6));
    let messages: Vec<_> = (1..=8).map(|row| message(row, &format!("product {row}"))).collect();
    harness.run(&messages).await;
    assert_eq!(harness.calls().len(), 8);
    // The rate limiter counts nanoseconds, Tokio sleeps whole milliseconds.
    let slack = Duration::from_millis(2);
    assert!(harness.gaps().iter().all(|gap| (seconds(10)..seconds(10) + slack).contains(gap)), "{:?}", harness.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_deadline_returns_the_message() {
    for (code, attempts) in [(429, 1), (503, 2)] {
        let (harness, mug) = (Harness::new(), message(1, "mug"));
        harness.script("mug", [retry_after(code, None, Some(seconds(50)))]);
        harness.send(std::slice::from_ref(&mug)).await;
        let batch = harness.batch_within(seconds(370)).await;
        assert_eq!((batch.back.len(), batch.took), (1, Duration::ZERO), "it returns at once");
        assert_eq!(harness.result(&mug).await, None);
        harness.drain().await;
        assert_eq!(harness.completed(&mug).await.attempts, attempts);
        let gap = harness.gaps()[0];
        assert!((seconds(50)..=seconds(63)).contains(&gap), "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_end_before_the_deadline_is_not_started() {
    let (harness, mug) = (Harness::new(), message(1, "mug"));
    harness.send(std::slice::from_ref(&mug)).await;
    let batch = harness.batch_within(seconds(329)).await;
    assert_eq!((batch.back, batch.took), (vec!["m1".to_owned()], Duration::ZERO));
    assert_eq!(harness.calls().len(), 0);
    assert_eq!(harness.read(&keys::ledger(&mug.fingerprint)).await, None, "the ledger is unchanged");
    assert_eq!((harness.depth().delayed, harness.depth().in_flight), (1, 0), "not at the queue's own timeout");
    assert!(harness.until_visible().await <= seconds(2));
    assert_eq!(harness.batch_within(seconds(330)).await.back, Vec::<String>::new());
    harness.completed(&mug).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_is_stopped_after_the_request_timeout() {
    let harness = Harness::with(|settings| {
        settings.request_timeout = seconds(100);
        settings.unknown_outcome_retries = 0;
    });
    let mug = message(1, "mug");
    harness.script("mug", [Answer::Never]);
    harness.send(std::slice::from_ref(&mug)).await;
    assert_eq!(harness.batch().await.took, seconds(100));
    let failed = harness.failed(&mug).await;
    assert_eq!((failed.error_code.as_str(), failed.latency_ms), ("outcome_unknown", Some(100_000)));
    assert!(failed.error.starts_with("no answer within 100 s (the call may have been billed"), "{}", failed.error);
}

#[tokio::test(start_paused = true)]
async fn fewer_images_than_requested_are_completed() {
    for (answer, count, short) in [
        (urls(&["https://images.test/1"]), 1, true),
        (urls(&["https://images.test/1", "https://images.test/1"]), 2, false),
        (urls(&["https://images.test/1"; 3]), 3, false),
        (Answer::Images(vec![]), 0, true),
    ] {
        let (harness, mug) = (Harness::new(), message(1, "mug"));
        harness.script("mug", [answer]);
        harness.run(std::slice::from_ref(&mug)).await;
        let completed = harness.completed(&mug).await;
        assert_eq!((completed.image_count, completed.image_urls.len(), completed.short), (count, count, short));
        assert_eq!(harness.calls().len(), 1, "an answer with fewer images has been paid for");
    }
}

#[tokio::test(start_paused = true)]
async fn long_errors_are_truncated() {
    for error in [
        ApiError::Answered { status: 400, code: None, body: "é".repeat(2_500_000), retry_after: None },
        ApiError::Answered { status: 400, code: Some("é".repeat(2_500_000)), body: String::new(), retry_after: None },
        ApiError::Answered { status: 500, code: Some("é".repeat(2_500_000)), body: String::new(), retry_after: None },
        ApiError::Unknown { code: "invalid_answer", status: Some(200), detail: "é".repeat(2_500_000) },
        ApiError::Answered { status: 402, code: None, body: "é".repeat(2_500_000), retry_after: None },
    ] {
        let (harness, mug) = (Harness::new(), message(1, "mug"));
        harness.script("mug", vec![Answer::Error(error); 3]);
        harness.run(std::slice::from_ref(&mug)).await;
        for key in [keys::result(&mug.job, 1, "SKU-1"), keys::ledger(&mug.fingerprint), keys::BREAKER.to_owned()] {
            let bytes = harness.read(&key).await.unwrap_or_default().len();
            assert!(bytes < 8 * 1024, "{key} has {bytes} bytes");
        }
        for sent in harness.retry.contents() {
            assert!(sent.attributes.values().all(|value| value.len() <= 2 * 1024));
        }
    }
}

/// SQS refuses empty attributes and these characters, and a message that cannot be moved to the retry queue would be delivered for
/// ever.
#[tokio::test(start_paused = true)]
async fn strange_error_codes_reach_the_retry_queue() {
    for (code, attribute) in [("", "unnamed"), ("\u{1}", "unnamed"), ("a\u{ffff}b\u{fffe}\u{7}", "ab")] {
        let (harness, mug) = (Harness::new(), message(1, "mug"));
        harness.script("mug", vec![status(500, Some(code)); 3]);
        harness.run(std::slice::from_ref(&mug)).await;
        assert_eq!(harness.failed(&mug).await.error_code, code);
        assert_eq!(harness.retried()[0].0, attribute);
    }
}

#[tokio::test(start_paused = true)]
async fn result_lines_begin_with_the_vendors_fields() {
    let (harness, mug, bag) = (Harness::new(), message(1, "mug"), message(2, "bag"));
    harness.script("mug", [Answer::Images(vec![GeneratedImage::Url("https://images.test/1".into())])]);
    harness.script("bag", [status(400, None)]);
    harness.run(&[mug.clone(), bag.clone()]).await;
    let line = async |message: &packshot_pipeline::model::message::RowMessage| {
        let bytes = harness.read(&keys::result(&message.job, message.row, &message.sku)).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let (completed, failed) = (line(&mug).await, line(&bag).await);
    assert!(
        completed.starts_with(
            r#"{"sku":"SKU-1","status":"completed","image_count":1,"image_urls":["https://images.test/1"],"request_id":"call-1","model_actual":null,"row":1,"#
        ),
        "{completed}"
    );
    assert!(failed.starts_with(r#"{"sku":"SKU-2","status":"failed","error":"HTTP 400: no 400","row":2,"#), "{failed}");
    assert!([completed, failed].iter().all(|line| line.ends_with("}\n") && line.lines().count() == 1));
}

#[tokio::test(start_paused = true)]
async fn the_calls_of_a_batch_are_concurrent_with_the_fingerprint_as_key() {
    let harness = Harness::new();
    let messages: Vec<_> = (1..=10).map(|row| message(row, &format!("product {row}"))).collect();
    harness.send(&messages).await;
    let batch = harness.batch().await;
    assert_eq!((batch.took, batch.back.len()), (CALL, 0));
    let mut keys: Vec<_> = harness.calls().into_iter().map(|call| call.key).collect();
    keys.sort();
    let mut fingerprints: Vec<_> = messages.iter().map(|message| message.fingerprint.to_string()).collect();
    fingerprints.sort();
    assert_eq!(keys, fingerprints);
    assert!(CALL < INVOCATION);
}
