//! Message bodies, and messages that must not affect the others of their batch.

use packshot_pipeline::model::{message::RowMessage, request::Request};
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::harness::{Answer, Harness, message, seconds};

#[tokio::test(start_paused = true)]
async fn an_unreadable_body_goes_to_the_retry_queue_once() {
    let good = message(1, "mug");
    let with = |change: fn(&mut RowMessage)| {
        let mut message = good.clone();
        change(&mut message);
        message.encode()
    };
    for unreadable in [
        "not json".to_owned(),
        "{}".to_owned(),
        with(|message| message.v = 2),
        with(|message| message.row = 0),
        with(|message| message.request.prompt.push('!')),
        good.encode().replacen(good.job.as_str(), "../../../control", 1),
    ] {
        let harness = Harness::new();
        harness.send_text(unreadable.clone()).await;
        harness.send(std::slice::from_ref(&good)).await;
        assert_eq!(harness.batch().await.back, Vec::<String>::new());
        assert!(harness.rows.is_empty(), "not delivered again");
        let parked = harness.retry.contents();
        assert_eq!(parked.iter().map(|parked| &parked.body).collect::<Vec<_>>(), [&unreadable]);
        assert_eq!(parked[0].attributes["error_code"], "poison");
        assert_eq!(parked[0].attributes["error_class"], "row");
        harness.completed(&good).await;
        assert_eq!(harness.calls().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_affects_only_its_own_message() {
    let (harness, mug, bag) = (Harness::new(), message(1, "mug"), message(2, "bag"));
    harness.script("mug", [Answer::Panic]);
    harness.send(&[mug.clone(), bag.clone()]).await;
    assert_eq!(harness.batch().await.back, ["m1"]);
    harness.completed(&bag).await;
    assert!(harness.until_visible().await <= seconds(38));
    harness.drain().await;
    let completed = harness.completed(&mug).await;
    assert_eq!((completed.attempts, completed.unknown_outcomes), (2, 1), "the outcome of the first call is unknown");
    assert_eq!(harness.calls_for("bag"), 1);
}

/// Texts with many of the characters that JSON escapes or SQS refuses.
fn text() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec!['\0', '\u{1f}', '\u{7f}', '\u{fffe}', '\u{ffff}', '"', '\\', '\n', 'u']);
    prop::collection::vec(prop_oneof![special, any::<char>()], 0..12).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn any_message_round_trips_through_an_sqs_body(
        texts in prop::array::uniform8(text()),
        columns in prop::collection::btree_map(text(), text(), 0..4),
        (row, line, round, n) in (1..u64::MAX, any::<u64>(), any::<u64>(), 1..=4_u8),
    ) {
        let [sku, model, prompt, image_url, size, quality, background, revision] = texts;
        let (background, revision) = (Some(background), Some(revision));
        let request = Request { model, prompt, image_url, size, quality, n, background, revision };
        let input: Map<String, Value> = columns.into_iter().map(|(name, value)| (name, value.into())).collect();
        let fingerprint = request.fingerprint();
        let message = RowMessage { sku, row, line, round, fingerprint, request, input, ..message(1, "mug") };
        let body = message.encode();
        let refused = |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
        prop_assert!(!body.contains(refused), "{body:?}");
        prop_assert_eq!(RowMessage::decode(&body), Ok(message));
    }
}
