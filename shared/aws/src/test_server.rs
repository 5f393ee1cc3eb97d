//! An HTTP server for tests: it answers each connection with the next of the given texts, byte for byte, and records the requests.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// In place of an answer: the server sends nothing and keeps the connection open.
pub(crate) const SILENCE: &str = "silence";

pub(crate) struct TestServer {
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestServer {
    /// Answers the first connection with the first text, and so on, closing each. An empty text closes without an answer.
    pub(crate) async fn answering(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        let recorded = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            for answer in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                let request = read_request(&mut connection).await;
                recorded.lock().unwrap().push(request);
                if answer == SILENCE {
                    open.push(connection);
                } else {
                    // The client may have closed the connection already, for example after aborting an upload.
                    let _ = connection.write_all(answer.as_bytes()).await;
                    let _ = connection.shutdown().await;
                }
            }
            // Later connections get no answer, as from a server that hangs.
            std::future::pending::<()>().await;
        });
        Self { url, requests, task }
    }

    /// The requests so far, each with head and body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn read_request(connection: &mut tokio::net::TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = vec![0; 65_536];
    let mut wanted = None;
    loop {
        if wanted.is_none() {
            wanted = whole_length(&String::from_utf8_lossy(&request));
        }
        if wanted.is_some_and(|wanted| request.len() >= wanted) {
            break;
        }
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
    String::from_utf8_lossy(&request).into_owned()
}

/// The length of a whole request in bytes, once its head is complete.
fn whole_length(request: &str) -> Option<usize> {
    let (head, _) = request.split_once("\r\n\r\n")?;
    let body = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().unwrap());
    Some(head.len() + 4 + body)
}
