//! The demo API over real HTTP, as a client observes it.
//!
//! Most tests start a server of their own with a script, and compare what the client observes and what the server counts as
//! calls with what the script says.

use std::io::Cursor;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;

use super::{server::MAX_BODY_BYTES, *};

const ROW: &str = "SKU-1";

/// One client per server: creating one takes longer than all calls of a test.
struct Served {
    api: DemoApi,
    http: reqwest::Client,
}

impl std::ops::Deref for Served {
    type Target = DemoApi;

    fn deref(&self) -> &DemoApi {
        &self.api
    }
}

async fn start(script: Value) -> Served {
    start_with(DemoApiOptions { script: serde_json::from_value(script).unwrap(), ..DemoApiOptions::default() }).await
}

async fn start_with(options: DemoApiOptions) -> Served {
    // Gives up where the server does not answer.
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(1_500)).build().unwrap();
    Served { api: DemoApi::start(options).await.unwrap(), http }
}

fn request(sku: &str, n: u8) -> Value {
    json!({"model": "gpt-image-1", "prompt": format!("Hero photo of {sku}."), "image_url": "https://example.com/a.png", "n": n})
}

async fn post(api: &Served, body: &Value) -> reqwest::Result<reqwest::Response> {
    let url = format!("{}/v1/images/generations", api.base_url());
    api.http.post(url).bearer_auth("key").json(body).send().await
}

async fn get(api: &Served, path: &str) -> reqwest::Response {
    api.http.get(format!("{}{path}", api.base_url())).send().await.unwrap()
}

fn decode(png: &[u8]) -> Vec<u8> {
    let mut decoder = png::Decoder::new(Cursor::new(png));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height, pixels.len()), (256, 256, 256 * 256 * 3));
    pixels
}

#[tokio::test]
async fn a_success_is_stable_and_its_images_open_and_differ() {
    let api = start(json!({})).await;
    let first: Value = post(&api, &request(ROW, 4)).await.unwrap().json().await.unwrap();
    assert_eq!(first["model_actual"], "openai/gpt-image-1");
    assert!(first["id"].as_str().unwrap().starts_with("gen_"));
    let second: Value = post(&api, &request(ROW, 4)).await.unwrap().json().await.unwrap();
    assert_eq!(first, second, "the same body has the same answer");
    let other: Value = post(&api, &request("SKU-2", 4)).await.unwrap().json().await.unwrap();
    assert_ne!(first["id"], other["id"]);

    let mut images = Vec::new();
    for entry in first["data"].as_array().unwrap().iter().chain([&other["data"][0]]) {
        let url = entry["url"].as_str().unwrap();
        let answer = get(&api, url.strip_prefix(api.base_url()).unwrap()).await;
        assert_eq!(answer.headers()["content-type"], "image/png");
        images.push(decode(&answer.bytes().await.unwrap()));
    }
    assert_eq!(images.len(), 5);
    let distinct: std::collections::BTreeSet<_> = images.iter().collect();
    assert_eq!(distinct.len(), 5);
    for path in ["/images/zz_1.png", "/images/0000000000000001_x.png", "/images/1_1.png", "/images/..%2fx", "/nothing"]
    {
        assert_eq!(get(&api, path).await.status(), 404, "{path}");
    }
}

#[test]
fn an_image_shows_its_number() {
    // The ink of variant 1 and 4 inside the label, cell by cell.
    for (variant, digit) in [(1, 0b010_110_010_010_111_u16), (4, 0b101_101_111_001_001)] {
        let pixels = decode(&images::png(7, variant).unwrap());
        let inked = |column: usize, row: usize| {
            let (x, y) = (256 - 60 + 12 + column * 12 + 6, 256 - 84 + 12 + row * 12 + 6);
            pixels[(y * 256 + x) * 3..][..3] == [32, 32, 32]
        };
        let seen = (0..15).fold(0, |seen, cell| seen << 1 | u16::from(inked(cell % 3, cell / 3)));
        assert_eq!(seen, digit, "variant {variant}: {seen:015b}");
    }
}

#[tokio::test]
async fn bad_requests_are_refused_and_cost_nothing() {
    let api = start(json!({})).await;
    let with = |name: &str, value: Value| {
        let mut body = request(ROW, 1);
        body[name] = value;
        body.to_string()
    };
    let cases = [
        ("half a JSON", "{\"prompt\":".to_owned(), 400, "invalid_json"),
        ("no object", "[]".to_owned(), 400, "invalid_json"),
        ("no prompt", with("prompt", Value::Null), 400, "invalid_prompt"),
        ("prompt no text", with("prompt", json!(3)), 400, "invalid_prompt"),
        ("empty image_url", with("image_url", json!("")), 400, "invalid_image_url"),
        ("n 0", with("n", json!(0)), 400, "invalid_n"),
        ("n 5", with("n", json!(5)), 400, "invalid_n"),
        ("n 257", with("n", json!(257)), 400, "invalid_n"),
        ("n 1.5", with("n", json!(1.5)), 400, "invalid_n"),
        ("n text", with("n", json!("2")), 400, "invalid_n"),
        ("too large", " ".repeat(MAX_BODY_BYTES + 1), 413, "too_large"),
    ];
    let url = format!("{}/v1/images/generations", api.base_url());
    let refused = cases.len() as u64 + 3;
    for (name, body, status, code) in cases {
        let answer = api.http.post(&url).bearer_auth("key").body(body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{name}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], code, "{name}");
    }
    for authorization in [None, Some("Bearer "), Some("Basic a2V5")] {
        let mut request = api.http.post(&url).json(&request(ROW, 1));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401, "{authorization:?}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "invalid_api_key");
    }
    assert_eq!(api.calls(), Calls { total: 0, billed: 0, refused, calls: Vec::new() });
}

/// What a client observes of one scripted answer.
#[derive(Debug, PartialEq)]
enum Observed {
    Images(usize),
    Answer(u16, String),
    NoConnection,
    HalfBody(u16),
    Silence,
}

async fn observe(api: &Served, body: &Value) -> Observed {
    let answer = match post(api, body).await {
        Ok(answer) => answer,
        Err(error) if error.is_timeout() => return Observed::Silence,
        Err(_) => return Observed::NoConnection,
    };
    let status = answer.status().as_u16();
    let Ok(text) = answer.text().await else { return Observed::HalfBody(status) };
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    match json["data"].as_array() {
        Some(data) if status == 200 => Observed::Images(data.len()),
        _ => Observed::Answer(status, text),
    }
}

#[tokio::test]
async fn every_kind_of_answer_arrives_as_written_and_is_billed_accordingly() {
    use Observed::*;
    let text = |status, body: &str| Answer(status, body.to_owned());
    let cases = [
        (json!({}), Images(3), 1),
        (json!({"billed": false}), Images(3), 0),
        (json!({"images": 1}), Images(1), 1),
        (json!({"images": 6}), Images(6), 1),
        (json!({"images": 0}), Images(0), 1),
        (json!({"status": 200, "json": {"data": []}}), Images(0), 1),
        (json!({"json": {"id": "x"}}), text(200, r#"{"id":"x"}"#), 1),
        (json!({"body": "<html>"}), text(200, "<html>"), 1),
        (json!({"status": 500, "body": "raw"}), text(500, "raw"), 0),
        (json!({"status": 500, "billed": true}), text(500, r#"{"error":{"message":"Internal Server Error"}}"#), 1),
        (
            json!({"status": 402, "json": {"error": {"code": "insufficient_quota"}}}),
            text(402, r#"{"error":{"code":"insufficient_quota"}}"#),
            0,
        ),
        (json!({"cut": "before"}), NoConnection, 0),
        (json!({"cut": "before", "billed": true}), NoConnection, 1),
        (json!({"cut": "headers"}), HalfBody(200), 1),
        (json!({"cut": "headers", "status": 503}), HalfBody(503), 0),
        (json!({"cut": "body"}), HalfBody(200), 1),
        (json!({"cut": "body", "billed": false}), HalfBody(200), 0),
        (json!({"no_answer": true}), Silence, 1),
        (json!({"no_answer": true, "billed": false}), Silence, 0),
        (json!({"delay_ms": 5_000}), Silence, 1),
    ];
    for (scripted, expected, billed) in cases {
        let api = start(json!({"all": [scripted]})).await;
        assert_eq!(observe(&api, &request(ROW, 3)).await, expected, "{scripted}");
        assert_eq!((api.calls().total, api.calls().billed), (1, billed), "{scripted}");
        assert_eq!(observe(&api, &request(ROW, 3)).await, Images(3), "after {scripted}");
    }
}

#[tokio::test]
async fn a_cut_body_ends_in_its_middle() {
    let api = start(json!({"all": [{"cut": "body", "body": "0123456789"}, {"cut": "headers"}]})).await;
    for expected in ["01234", ""] {
        let mut answer = post(&api, &request(ROW, 1)).await.unwrap();
        assert!(answer.content_length().unwrap() >= 10);
        let mut seen = Vec::new();
        let error = loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => seen.extend_from_slice(&chunk),
                Ok(None) => panic!("the body ended properly"),
                Err(error) => break error,
            }
        };
        assert!(!error.is_timeout(), "{error:?}");
        assert_eq!(String::from_utf8(seen).unwrap(), expected);
    }
}

#[tokio::test]
async fn images_inside_the_answer_are_the_linked_ones() {
    let api = start(json!({"rules": [{"match": ROW, "answers": [{"as": "b64_json"}]}]})).await;
    let inside: Value = post(&api, &request(ROW, 2)).await.unwrap().json().await.unwrap();
    let linked: Value = post(&api, &request(ROW, 2)).await.unwrap().json().await.unwrap();
    for (inside, linked) in inside["data"].as_array().unwrap().iter().zip(linked["data"].as_array().unwrap()) {
        let bytes = BASE64_STANDARD.decode(inside["b64_json"].as_str().unwrap()).unwrap();
        decode(&bytes);
        let path = linked["url"].as_str().unwrap().strip_prefix(api.base_url()).unwrap();
        assert_eq!(bytes, get(&api, path).await.bytes().await.unwrap());
    }
}

#[tokio::test]
async fn headers_and_delays_are_kept() {
    let answer = json!({"status": 429, "headers": {"Retry-After": "7", "content-type": "text/html"}, "delay_ms": 150});
    let api = start(json!({"all": [answer]})).await;
    let begin = tokio::time::Instant::now();
    let answer = post(&api, &request(ROW, 1)).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(150));
    assert_eq!(
        (&answer.headers()["retry-after"], &answer.headers()["content-type"]),
        (&"7".parse().unwrap(), &"text/html".parse().unwrap())
    );
}

#[tokio::test]
async fn each_key_has_its_own_position_in_the_sequence() {
    let api = start(json!({"rules": [
        {"match": "SKU-2", "answers": [{"status": 500}, {}], "then": "repeat"},
        {"sku": "SKU", "answers": [{"status": 503}, {"status": 502}]},
    ], "all": [{"status": 418}]}))
    .await;
    let statuses = async |sku: &str| {
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(post(&api, &request(sku, 1)).await.unwrap().status().as_u16());
        }
        seen
    };
    assert_eq!(statuses("SKU-1").await, [503, 502, 200, 200]);
    assert_eq!(statuses("SKU-2").await, [500, 200, 500, 200], "the first rule that matches answers");
    assert_eq!(statuses("SKU-3").await, [503, 502, 200, 200], "another key begins at the beginning");
    assert_eq!(statuses("mug").await, [418, 200, 200, 200], "no rule matches");
    assert_eq!((api.calls().total, api.calls().billed), (16, 9));
}

#[tokio::test]
async fn calls_are_listed_by_key_over_http() {
    let api = start(json!({"rules": [{"match": ROW, "answers": [{"status": 500}]}]})).await;
    let url = format!("{}/v1/images/generations", api.base_url());
    for sku in [ROW, ROW, "SKU-2"] {
        let key = format!("key of {sku}");
        let body = request(sku, 1);
        api.http.post(&url).bearer_auth("key").header("idempotency-key", key).json(&body).send().await.unwrap();
    }
    let body = request("keyless", 1);
    post(&api, &body).await.unwrap();
    let digest = hex::encode(Sha256::digest(body.to_string()));

    let seen: Value = get(&api, "/_calls").await.json().await.unwrap();
    let call = |key: &str, count: u64, billed: u64, sku: &str| {
        json!({
            "key": key, "count": count, "billed": billed,
            "prompt": format!("Hero photo of {sku}."), "image_url": "https://example.com/a.png",
        })
    };
    let mut calls =
        [call(&digest, 1, 1, "keyless"), call("key of SKU-1", 2, 1, ROW), call("key of SKU-2", 1, 1, "SKU-2")];
    calls.sort_by_key(|call| call["key"].as_str().unwrap().to_owned());
    assert_eq!(seen, json!({"total": 4, "billed": 3, "refused": 0, "calls": calls}));
    assert_eq!(seen, json!(api.calls()));
    assert_eq!(get(&api, "/healthz").await.text().await.unwrap(), "ok");
}

#[tokio::test]
async fn the_script_can_be_replaced_while_serving() {
    let api = start(json!({"rules": [{"match": "", "answers": [{"status": 503}]}]})).await;
    let url = format!("{}/_script", api.base_url());
    let set = async |script: &str| {
        let answer = api.http.post(&url).body(script.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let status = async || post(&api, &request(ROW, 1)).await.unwrap().status().as_u16();
    assert_eq!((status().await, status().await), (503, 200));
    assert_eq!(set(r#"{"account": "empty", "all": [{"status": 500}]}"#).await.0, 200);
    assert!(
        matches!(observe(&api, &request(ROW, 1)).await, Observed::Answer(402, body) if body.contains("insufficient_quota"))
    );
    assert_eq!(set(r#"{"rules": [{"match": "", "answers": [{"status": 500}]}]}"#).await.0, 200);
    assert_eq!((status().await, status().await), (500, 200), "every sequence restarts");
    let (refused, why) = set("{\n \"alll\": []}").await;
    assert_eq!(refused, 400);
    assert!(why.contains("alll") && why.contains("line 2"), "{why}");
    assert_eq!(status().await, 200, "a bad script changes nothing");
    assert_eq!((api.calls().total, api.calls().billed), (6, 3));
}

#[tokio::test]
async fn the_first_call_of_a_share_of_the_keys_fails() {
    let script = json!({"rules": [{"match": "exempt", "answers": []}], "fail_first_percent": 10});
    let failed = async || {
        let api = start(script.clone()).await;
        let mut failed = Vec::new();
        for i in 0..200 {
            if post(&api, &request(&format!("row {i}"), 1)).await.unwrap().status() == 500 {
                assert_eq!(post(&api, &request(&format!("row {i}"), 1)).await.unwrap().status(), 200);
                failed.push(i);
            }
            assert_eq!(post(&api, &request(&format!("exempt {i}"), 1)).await.unwrap().status(), 200);
        }
        failed
    };
    let first = failed().await;
    assert!((8..=32).contains(&first.len()), "{first:?}");
    assert_eq!(first, failed().await, "the same keys each time");
}

#[test]
fn a_bad_script_is_refused_with_its_place() {
    let cases = [
        (r#"{"rule": []}"#, "unknown field `rule`"),
        (r#"{"all": [{"stat": 200}]}"#, "unknown field `stat`"),
        (r#"{"all": [{"status": 99}]}"#, "99 is no status"),
        (r#"{"all": [{"status": 700}]}"#, "700 is no status"),
        (r#"{"all": [{"cut": "middle"}]}"#, "unknown variant `middle`"),
        (r#"{"all": [{"headers": {"a b": "c"}}]}"#, "header `a b`"),
        (r#"{"all": [{"headers": {"Content-Length": "3"}}]}"#, "the server sets it"),
        (r#"{"rules": [{"answers": []}]}"#, "missing field `match`"),
        (r#"{"rules": [{"match": "a"}]}"#, "missing field `answers`"),
        (r#"{"fail_first_percent": 101}"#, "101 is no percentage"),
        (r#"{"account": "full"}"#, "unknown variant `full`"),
        (r#"{"all": ["#, "EOF"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script.json");
    for (text, expected) in cases {
        std::fs::write(&path, format!("\n{text}")).unwrap();
        let error = Script::load(&path).unwrap_err().to_string();
        for part in [expected, "script.json", "line 2 column"] {
            assert!(error.contains(part), "{text}: {error} lacks {part}");
        }
    }
    let missing = Script::load(&dir.path().join("none.json")).unwrap_err();
    assert!(matches!(missing, ScriptError::Read { .. }), "{missing}");
}

/// The example in the documentation of the module is a valid script.
#[test]
fn the_documented_script_is_one() {
    let source = include_str!("mod.rs");
    let example: String = source
        .lines()
        .skip_while(|line| *line != "//! ```json")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//!"))
        .collect();
    let script: Script = serde_json::from_str(&example).unwrap();
    assert_eq!((script.rules.len(), script.all.len(), script.fail_first_percent), (2, 1, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_in_flight_wait_side_by_side() {
    let options = DemoApiOptions { latency: Duration::from_millis(50), ..DemoApiOptions::default() };
    let api = start_with(options).await;
    let url = format!("{}/v1/images/generations", api.base_url());
    let begin = tokio::time::Instant::now();
    let statuses: Vec<_> = stream::iter(0..2_000)
        .map(|i| {
            api.http
                .post(&url)
                .timeout(Duration::from_secs(30))
                .bearer_auth("key")
                .json(&request(&format!("row {i}"), 4))
                .send()
        })
        .buffer_unordered(256)
        .map(|answer| answer.unwrap().status().as_u16())
        .collect()
        .await;
    let elapsed = begin.elapsed();
    assert!(statuses.iter().all(|status| *status == 200));
    let calls = api.calls();
    assert_eq!((calls.total, calls.billed, calls.calls.len()), (2_000, 2_000, 2_000));
    // Eight waves of 256; one after the other, they would take 100 seconds.
    assert!(elapsed >= Duration::from_millis(7 * 50), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    println!("2,000 calls of 50 ms, 256 in flight: {elapsed:?}");
}

#[tokio::test]
async fn a_shutdown_lets_answers_end_drops_silent_ones_and_frees_the_port() {
    let api = start(json!({"rules": [
        {"match": "slow", "answers": [{"delay_ms": 300}]},
        {"match": "mute", "answers": [{"no_answer": true}]},
    ]}))
    .await;
    let (addr, base_url) = (api.local_addr, api.base_url().to_owned());
    let call = |sku: &str| {
        let body = request(sku, 1);
        let request = api.http.post(format!("{base_url}/v1/images/generations")).timeout(Duration::from_secs(30));
        tokio::spawn(request.bearer_auth("key").json(&body).send())
    };
    let (slow, mute) = (call("slow"), call("mute"));
    while api.calls().total < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begin = tokio::time::Instant::now();
    api.api.shutdown().await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    assert!(!mute.await.unwrap().unwrap_err().is_timeout());
    assert!(TcpStream::connect(addr).await.is_err());
}
