//! A client for a running demo API: reads its calls and sets its script.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use packshot::demo_api::Script;
use serde_json::Value;

/// A demo API that runs in another process.
#[derive(Debug, Clone)]
pub struct DemoApi {
    /// Its base URL.
    pub url: String,
}

impl DemoApi {
    /// The calls that it has counted.
    #[must_use]
    pub fn calls(&self) -> Value {
        self.ask("GET", "/_calls", "")
    }

    /// The number of calls.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.calls()["total"].as_u64().unwrap()
    }

    /// Sets the script; every sequence restarts, the counts stay.
    pub fn follow(&self, script: &Value) {
        serde_json::from_value::<Script>(script.clone()).unwrap();
        self.ask("POST", "/_script", &script.to_string());
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
        if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap_or(Value::Null) }
    }
}
