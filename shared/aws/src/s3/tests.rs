//! Calls against a server that breaks connections: how far a call came must show in its error.

use aws_sdk_s3::config::{self, BehaviorVersion, Credentials, Region};

use super::*;
use crate::test_server::TestServer;

fn store(endpoint: &str) -> S3Store {
    let config = config::Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .build();
    S3Store::new(Client::from_conf(config), "bucket")
}

async fn closed_port() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_write_that_was_not_sent_is_unavailable_and_a_lost_one_unknown() {
    let body = || Bytes::from_static(b"{}");
    let result = store(&closed_port().await).put("k.json", body(), Precondition::Absent).await;
    assert!(matches!(result, Err(StoreError::Unavailable { .. })), "{result:?}");

    let server = TestServer::answering(&["", "HTTP/1.1 412 No\r\nContent-Length: 0\r\n\r\n"]).await;
    let result = store(&server.url).put("k.json", body(), Precondition::Absent).await;
    assert!(matches!(result, Err(StoreError::Unknown { .. })), "{result:?}");
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "the SDK does not repeat a write");
    let head = requests[0].to_ascii_lowercase();
    assert!(head.contains("if-none-match: *") && head.contains("content-type: application/json"), "{head}");
}

#[tokio::test]
async fn a_broken_read_resumes_where_it_broke() {
    let head = "ETag: \"e1\"\r\nLast-Modified: Sun, 01 Mar 2026 12:00:00 GMT\r\n";
    let server = TestServer::answering(&[
        &format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 10\r\n\r\n0123"),
        "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n",
        &format!("HTTP/1.1 206 Partial\r\n{head}Content-Range: bytes 4-9/10\r\nContent-Length: 6\r\n\r\n456789"),
    ])
    .await;
    let object = store(&server.url).open("k", Some("v1")).await.unwrap().unwrap();
    assert_eq!((object.meta.bytes, &*object.meta.etag.0), (10, "e1"));
    let chunks: Vec<Bytes> = object.body.try_collect().await.unwrap();
    assert_eq!(chunks.concat(), b"0123456789");
    let last = server.requests().pop().unwrap().to_ascii_lowercase();
    assert!(
        last.contains("range: bytes=4-") && last.contains("if-match: \"e1\"") && last.contains("versionid=v1"),
        "{last}"
    );
}

#[tokio::test]
async fn a_read_does_not_resume_if_the_object_has_changed() {
    let server = TestServer::answering(&[
        "HTTP/1.1 200 OK\r\nETag: \"e1\"\r\nLast-Modified: Sun, 01 Mar 2026 12:00:00 GMT\r\nContent-Length: 10\r\n\r\n0123",
        "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n",
    ])
    .await;
    let object = store(&server.url).open("k", None).await.unwrap().unwrap();
    let result: Result<Vec<Bytes>, StoreError> = object.body.try_collect().await;
    assert_eq!(result, Err(StoreError::Conflict { key: "k".into() }));
}

#[tokio::test]
async fn a_long_body_goes_up_in_parts_and_an_unfinished_one_is_aborted() {
    let created = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
    let server = TestServer::answering(&[
        &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{created}", created.len()),
        "HTTP/1.1 200 OK\r\nETag: \"p1\"\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ])
    .await;
    let broken = stream::iter([
        Ok(Bytes::from(vec![b'x'; PART_BYTES])),
        Err(StoreError::Unavailable { detail: "the source broke".into() }),
    ]);
    let result = store(&server.url).put_stream("m.jsonl", broken.boxed(), Precondition::None).await;
    assert_eq!(result, Err(StoreError::Unavailable { detail: "the source broke".into() }));
    let requests = server.requests();
    assert!(requests[0].starts_with("POST /bucket/m.jsonl?uploads"), "{}", &requests[0][..200]);
    let last = requests.last().unwrap();
    assert!(last.starts_with("DELETE /bucket/m.jsonl?") && last.contains("uploadId=u1"), "{last}");
}

#[test]
fn ten_thousand_parts_hold_the_manifest_of_a_hundred_million_rows() {
    assert_eq!((part_bytes(1), part_bytes(1_000), part_bytes(1_001)), (PART_BYTES, PART_BYTES, 2 * PART_BYTES));
    let all: usize = (1..=10_000).map(part_bytes).sum();
    assert_eq!(all, 440_000 * 1024 * 1024);
    assert!(part_bytes(10_000) * PARTS_IN_FLIGHT <= 320 * 1024 * 1024, "what a merger can hold in memory");
}
