//! A server of a few lines that gives the answers it was told, one per connection, byte for byte.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// An answer that never comes: the connection stays open.
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
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            for answer in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                let request = read_request(&mut connection).await;
                seen.lock().unwrap().push(request);
                if answer == SILENCE {
                    open.push(connection);
                } else {
                    // A client may be gone already, as one that gives up an upload.
                    let _ = connection.write_all(answer.as_bytes()).await;
                    let _ = connection.shutdown().await;
                }
            }
            // Whoever comes now waits, as with a server that hangs.
            std::future::pending::<()>().await;
        });
        Self { url, requests, task }
    }

    /// The requests so far, head and body.
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

/// How long a request is, as soon as its head is there.
fn whole_length(request: &str) -> Option<usize> {
    let (head, _) = request.split_once("\r\n\r\n")?;
    let body = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().unwrap());
    Some(head.len() + 4 + body)
}
