//! Bodies, and what one message may do to its neighbours.

use packshot_pipeline::model::{message::RowMessage, request::Request};
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::rig::{Answer, Rig, message, seconds};

#[tokio::test(start_paused = true)]
async fn a_poison_body_is_parked_once() {
    let good = message(1, "mug");
    let with = |change: fn(&mut RowMessage)| {
        let mut message = good.clone();
        change(&mut message);
        message.encode()
    };
    for poison in [
        "not json".to_owned(),
        "{}".to_owned(),
        with(|message| message.v = 2),
        with(|message| message.row = 0),
        with(|message| message.request.prompt.push('!')),
        good.encode().replacen(good.job.as_str(), "../../../control", 1),
    ] {
        let rig = Rig::new();
        rig.send_text(poison.clone()).await;
        rig.send(std::slice::from_ref(&good)).await;
        assert_eq!(rig.batch().await.back, Vec::<String>::new());
        assert!(rig.rows.is_empty(), "never retried forever");
        let parked = rig.retry.contents();
        assert_eq!(parked.iter().map(|parked| &parked.body).collect::<Vec<_>>(), [&poison]);
        assert_eq!(parked[0].attributes["error_code"], "poison");
        assert_eq!(parked[0].attributes["error_class"], "row");
        rig.completed(&good).await;
        assert_eq!(rig.calls().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_one_messages_own() {
    let (rig, mug, bag) = (Rig::new(), message(1, "mug"), message(2, "bag"));
    rig.script("mug", [Answer::Panic]);
    rig.send(&[mug.clone(), bag.clone()]).await;
    assert_eq!(rig.batch().await.back, ["m1"]);
    rig.completed(&bag).await;
    assert!(rig.until_visible().await <= seconds(38));
    rig.drain().await;
    let completed = rig.completed(&mug).await;
    assert_eq!((completed.attempts, completed.unknown_outcomes), (2, 1), "nobody knows what became of the first call");
    assert_eq!(rig.calls_for("bag"), 1);
}

/// Every character that JSON or SQS is particular about, often.
fn text() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec!['\0', '\u{1f}', '\u{7f}', '\u{fffe}', '\u{ffff}', '"', '\\', '\n', 'u']);
    prop::collection::vec(prop_oneof![special, any::<char>()], 0..12).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn a_body_goes_through_sqs_unchanged(
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
