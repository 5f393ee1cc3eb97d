//! Calls against a server that answers byte for byte what a test says.

use packshot_pipeline::ports::GeneratedImage;

use super::*;
use crate::{
    clock::FixedClock,
    test_server::{SILENCE, TestServer},
};

mod connections;

const KEY: &str = "sk-live-0123456789";

fn api(base_url: &str) -> ImagesApi {
    ImagesApi::new(base_url, Duration::from_millis(400), Arc::new(ApiKey::new(KEY).unwrap()), Arc::new(FixedClock))
        .unwrap()
}

fn request() -> Request {
    Request {
        model: "gpt-image-1".into(),
        prompt: "A mug \"Zoë\"".into(),
        image_url: "https://cdn.example.com/mug.png".into(),
        size: "1024x1024".into(),
        quality: "high".into(),
        n: 2,
        background: None,
        revision: Some("r2".into()),
    }
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

async fn call(answer: &str) -> Result<Generated, ApiError> {
    let server = TestServer::answering(&[answer]).await;
    let result = api(&server.url).generate(&request(), "fp").await;
    let shown = format!("{result:?} {}", result.as_ref().err().map(ToString::to_string).unwrap_or_default());
    assert!(!shown.contains(KEY), "the key shows: {shown}");
    assert_eq!(server.requests().len(), 1, "a paid call is made once");
    result
}

fn unknown(result: Result<Generated, ApiError>) -> (&'static str, Option<u16>, String) {
    match result {
        Err(ApiError::Unknown { code, status, detail }) => (code, status, detail),
        other => panic!("not an unknown outcome: {other:?}"),
    }
}

#[tokio::test]
async fn the_request_matches_the_vendors_sample() {
    let body = r#"{"created":1,"id":"gen_1","model_actual":"openai/gpt-image-1","data":[
        {"url":"https://cdn.test/a.png","revised_prompt":null},{"url":"","b64_json":"UE5H"},{"url":7},null,"x",
        {"b64_json":"%%"},{"b64_json":"data:image/png;base64,UE5H"}],"usage":{}}"#;
    let server = TestServer::answering(&[&http("200 OK", "", body), &http("200 OK", "", body)]).await;
    let generated = api(&format!("{}/", server.url)).generate(&request(), "fp-1").await.unwrap();
    let png = || GeneratedImage::Inline(Bytes::from_static(b"PNG"));
    assert_eq!(generated.images, [GeneratedImage::Url("https://cdn.test/a.png".into()), png(), png()]);
    assert_eq!(generated.request_id.as_deref(), Some("gen_1"));
    assert_eq!(generated.model_actual.as_deref(), Some("openai/gpt-image-1"));

    let transparent = Request { background: Some("transparent".into()), ..request() };
    api(&server.url).generate(&transparent, "fp-2").await.unwrap();
    let requests = server.requests();
    let (head, sent) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/images/generations HTTP/1.1\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains(&format!("\r\nauthorization: bearer {KEY}\r\n")), "{head}");
    assert!(head.contains("\r\nidempotency-key: fp-1\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
    assert_eq!(
        sent,
        r#"{"model":"gpt-image-1","prompt":"A mug \"Zoë\"","image_url":"https://cdn.example.com/mug.png","size":"1024x1024","quality":"high","n":2}"#
    );
    let (_, sent) = requests[1].split_once("\r\n\r\n").unwrap();
    assert_eq!(
        sent,
        r#"{"model":"gpt-image-1","prompt":"A mug \"Zoë\"","image_url":"https://cdn.example.com/mug.png","size":"1024x1024","quality":"high","n":2,"background":"transparent"}"#,
        "all fields but `revision`, which is never sent"
    );
}

#[tokio::test]
async fn an_unreadable_success_is_an_unknown_outcome() {
    for (answer, code, part) in [
        (http("200 OK", "", "<html>busy</html>"), "invalid_answer", "<html>busy"),
        (http("200 OK", "", r#"{"data":[{"url":"https://cd"#), "invalid_answer", "https://cd"),
        (http("204 No Content", "", ""), "invalid_answer", "HTTP 204"),
        (http("200 OK", "", r#"{"data":[]}"#), "no_images", "data"),
        (http("200 OK", "", r#"{"data":null}"#), "no_images", "null"),
        (http("200 OK", "", &format!(r#"{{"error":"{KEY}"}}"#)), "no_images", "***"),
        (http("200 OK", "", "[1]"), "no_images", "[1]"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".into(), "connection_lost", "before the answer was complete"),
    ] {
        let (got, status, detail) = unknown(call(&answer).await);
        assert_eq!(got, code, "{answer}");
        assert!(status.is_some(), "{answer}");
        assert!(detail.contains(part) && detail.len() < 1024, "{answer}: {detail}");
    }
}

#[tokio::test]
async fn no_answer_and_a_closed_connection_are_unknown_outcomes() {
    let (code, status, detail) = unknown(call(SILENCE).await);
    assert_eq!((code, status, detail.as_str()), ("timeout", None, "no answer within 0.4 s"));
    let (code, status, _) = unknown(call("").await);
    assert_eq!((code, status), ("connection_lost", None));
}

#[tokio::test]
async fn a_closed_port_was_not_sent_anything() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let result = api(&url).generate(&request(), "fp").await;
    assert!(matches!(result, Err(ApiError::NotSent { .. })), "{result:?}");
    let unresolvable = api("https://packshot.invalid").generate(&request(), "fp").await;
    assert!(matches!(unresolvable, Err(ApiError::NotSent { .. })), "{unresolvable:?}");
}

#[tokio::test]
async fn a_status_is_an_answer() {
    let body = r#"{"error":{"code":"insufficient_quota","message":"Zoë"}}"#;
    let result = call(&http("402 Payment Required", "Retry-After: 7\r\n", body)).await;
    let expected = ApiError::Answered {
        status: 402,
        code: Some("insufficient_quota".into()),
        body: body.into(),
        retry_after: Some(Duration::from_secs(7)),
    };
    assert_eq!(result, Err(expected.clone()));
    assert_eq!(expected.to_string(), format!("HTTP 402: {body}"));

    let result = call(&http("307 Temporary Redirect", "Location: /elsewhere\r\n", "")).await;
    assert!(matches!(result, Err(ApiError::Answered { status: 307, .. })), "{result:?}");
    let result = call("HTTP/1.1 500 Oops\r\nContent-Length: 99\r\n\r\nhalf").await;
    assert!(matches!(&result, Err(ApiError::Answered { status: 500, body, .. }) if body == "half"), "{result:?}");
}

/// A key source that moves to the next key after each rejection and stays at the last one.
struct Rotating {
    keys: &'static [&'static str],
    rejections: std::sync::atomic::AtomicUsize,
}

impl Rotating {
    fn through(keys: &'static [&'static str]) -> Arc<Self> {
        Arc::new(Self { keys, rejections: 0.into() })
    }

    fn rejections(&self) -> usize {
        self.rejections.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[async_trait]
impl KeySource for Rotating {
    async fn key(&self) -> Result<ApiKey, ApiError> {
        match self.keys[self.rejections().min(self.keys.len() - 1)] {
            "" => Err(ApiError::NotSent { detail: "the secret cannot be read".into() }),
            key => Ok(ApiKey::new(key).unwrap()),
        }
    }

    async fn rejected(&self, key: &ApiKey) {
        assert_eq!(self.key().await.unwrap(), *key, "the rejected key is the current one");
        self.rejections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[tokio::test]
async fn after_a_refusal_another_key_is_tried_once() {
    let good = http("200 OK", "", r#"{"id":"gen_1","data":[{"url":"https://cdn.test/1.png"}]}"#);
    let no = http("401 No", "", "");
    let named = http("403 No", "", r#"{"error":{"code":"invalid_api_key"}}"#);
    let forbidden = http("403 No", "", "");
    for (keys, answers, used, outcome) in [
        // The key was replaced while the process was running: the row does not fail.
        (&["sk-old-key", "sk-new-key"][..], &[&no, &good][..], &["sk-old-key", "sk-new-key"][..], 200),
        (&["sk-old-key", "sk-new-key"], &[&named, &good], &["sk-old-key", "sk-new-key"], 200),
        // The source has no other key: one call, and its refusal is the result.
        (&["sk-old-key"], &[&no], &["sk-old-key"], 401),
        // The second key is refused as well: there is no third call.
        (&["sk-old-key", "sk-bad-key", "sk-new-key"], &[&no, &no], &["sk-old-key", "sk-bad-key"], 401),
        // The outcome of the second call is the result, whatever it is.
        (&["sk-old-key", "sk-new-key"], &[&no, &http("500 No", "", "")], &["sk-old-key", "sk-new-key"], 500),
        // The second key cannot be read: the first refusal is the result.
        (&["sk-old-key", ""], &[&no], &["sk-old-key"], 401),
        // A 403 without a code does not refuse the key.
        (&["sk-old-key", "sk-new-key"], &[&forbidden], &["sk-old-key"], 403),
    ] {
        let answers: Vec<&str> = answers.iter().map(|answer| answer.as_str()).collect();
        let server = TestServer::answering(&answers).await;
        let source = Rotating::through(keys);
        let api = ImagesApi::new(
            &server.url,
            Duration::from_secs(5),
            source.clone() as Arc<dyn KeySource>,
            Arc::new(FixedClock),
        )
        .unwrap();
        let status = match api.generate(&request(), "fp").await {
            Ok(_) => 200,
            Err(ApiError::Answered { status, .. }) => status,
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(status, outcome, "{keys:?}");
        let requests = server.requests();
        assert_eq!(requests.len(), used.len(), "{keys:?}");
        for (request, key) in requests.iter().zip(used) {
            assert!(request.contains(&format!("Bearer {key}")), "{keys:?}: {request}");
        }
    }
}

#[tokio::test]
async fn a_long_error_is_cut_and_the_key_in_it_hidden() {
    // The key lies across the cut, and the text has characters of two bytes.
    let body = format!("{}{KEY}{}", "é".repeat(1020), "é".repeat(100_000));
    let Err(ApiError::Answered { body, .. }) = call(&http("500 Oops", "", &body)).await else { panic!("not answered") };
    assert!(body.len() <= 2048 && body.len() > 2000, "{}", body.len());
    assert!(body.contains("é***é") && !body.contains("sk-"), "{body}");
}

#[tokio::test]
async fn a_key_in_a_result_is_hidden() {
    let body = format!(r#"{{"id":"{KEY}","data":[{{"url":"https://cdn.test/?key={KEY}"}}]}}"#);
    let generated = call(&http("200 OK", "", &body)).await.unwrap();
    assert_eq!(generated.request_id.as_deref(), Some("***"));
    assert_eq!(generated.images, [GeneratedImage::Url("https://cdn.test/?key=***".into())]);
}
