use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::future::join_all;
use jiff::Timestamp;
use packshot_pipeline::{
    model::request::Request,
    ports::{ApiError, Clock, Generated, ImageApi},
};
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;
use crate::{images_api::ImagesApi, key::ApiKey};

const ANSWER: &str = r#"{"id":"gen_1","data":[{"url":"https://cdn.test/a.png"}]}"#;

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn random(&self) -> u64 {
        0
    }
}

/// An HTTPS server that counts.
struct Api {
    api: Arc<ImagesApi>,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// With a protocol agreed on and at least one byte after the handshake.
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
}

/// What the server does with a connection.
#[derive(Clone, Copy)]
enum Way {
    /// HTTP/2: answers after a while.
    Multiplexed,
    /// HTTP/1.1, keeping the connection open.
    KeptAlive,
    /// HTTP/2: reads one request, sends these bytes and closes.
    Raw(&'static [u8]),
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Api {
    async fn start(way: Way) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let certificate = made.cert.der().clone();
        let mut server =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
        server.alpn_protocols = vec![if matches!(way, Way::KeptAlive) { "http/1.1".into() } else { "h2".into() }];
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let seen = Arc::new(Seen::default());
        let (acceptor, counted) = (TlsAcceptor::from(Arc::new(server)), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                    let mut first = [0; 1];
                    if !matches!(tls.read(&mut first).await, Ok(1)) {
                        return;
                    }
                    seen.connections.fetch_add(1, SeqCst);
                    seen.open.fetch_add(1, SeqCst);
                    match way {
                        Way::Multiplexed => multiplexed(first, tls, &seen).await,
                        Way::KeptAlive => kept_alive(tls, &seen).await,
                        Way::Raw(bytes) => raw(tls, bytes, &seen).await,
                    }
                    seen.open.fetch_sub(1, SeqCst);
                });
            }
        });
        let key = Arc::new(ApiKey::new("sk-live-0123456789").unwrap());
        let api = ImagesApi::with_tls(&url, Duration::from_secs(5), key, Arc::new(Noon), &tls).unwrap();
        Self { api: Arc::new(api), seen, task }
    }

    async fn call(&self) -> Result<Generated, ApiError> {
        let request = Request {
            model: "m".into(),
            prompt: "p".into(),
            image_url: "https://cdn.test/mug.png".into(),
            size: "s".into(),
            quality: "q".into(),
            n: 1,
            background: None,
            revision: None,
        };
        self.api.generate(&request, "fp").await
    }

    fn counts(&self) -> (usize, usize) {
        (self.seen.connections.load(SeqCst), self.seen.requests.load(SeqCst))
    }
}

async fn multiplexed(first: [u8; 1], tls: TlsStream<TcpStream>, seen: &Arc<Seen>) {
    let (read, write) = tokio::io::split(tls);
    let io = tokio::io::join(std::io::Cursor::new(first).chain(read), write);
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let seen = Arc::clone(seen);
        tokio::spawn(async move {
            seen.requests.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(ANSWER.into(), true).unwrap();
        });
    }
}

async fn kept_alive(mut tls: TlsStream<TcpStream>, seen: &Arc<Seen>) {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = tls.read(&mut buffer).await {
        text.extend_from_slice(&buffer[..read]);
        if text.ends_with(b"}") {
            seen.requests.fetch_add(1, SeqCst);
            text.clear();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{ANSWER}", ANSWER.len());
            tls.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

/// Frames by hand: no server library sends what a dying server does.
async fn raw(mut tls: TlsStream<TcpStream>, bytes: &[u8], seen: &Arc<Seen>) {
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    // One byte of it was read already.
    let mut preface = [0; 23];
    tls.read_exact(&mut preface).await.unwrap();
    tls.write_all(SETTINGS).await.unwrap();
    loop {
        let mut head = [0; 9];
        tls.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        tls.read_exact(&mut payload).await.unwrap();
        // The end of a DATA frame's stream.
        if head[3] == 0 && head[4] & 1 == 1 {
            break;
        }
    }
    seen.requests.fetch_add(1, SeqCst);
    tls.write_all(bytes).await.unwrap();
    let _ = tls.shutdown().await;
}

#[tokio::test]
async fn calls_that_overlap_share_a_connection_and_the_last_closes_it() {
    let api = Api::start(Way::Multiplexed).await;
    let calls = join_all((0..CALLS_PER_CONNECTION * 2).map(|_| api.call())).await;
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    assert_eq!(api.counts(), (2, CALLS_PER_CONNECTION * 2));
    for _ in 0..100 {
        if api.seen.open.load(SeqCst) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(api.seen.open.load(SeqCst), 0, "no connection is idle");
    api.call().await.unwrap();
    assert_eq!(api.counts(), (3, CALLS_PER_CONNECTION * 2 + 1));
}

#[tokio::test]
async fn over_http_1_each_call_has_its_own_connection() {
    let api = Api::start(Way::KeptAlive).await;
    for _ in 0..3 {
        api.call().await.unwrap();
    }
    assert_eq!(api.counts(), (3, 3));
}

#[tokio::test]
async fn what_the_server_says_it_did_not_begin_was_not_sent() {
    const REFUSED_STREAM: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07";
    const GOAWAY_BEFORE_IT: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    for bytes in [REFUSED_STREAM, GOAWAY_BEFORE_IT] {
        let api = Api::start(Way::Raw(bytes)).await;
        let result = api.call().await;
        assert!(matches!(result, Err(ApiError::NotSent { .. })), "{bytes:?}: {result:?}");
        assert_eq!(api.counts(), (1, 1), "nothing here sends it again");
    }
}

#[tokio::test]
async fn what_a_server_took_before_it_died_is_unknown() {
    const NOTHING: &[u8] = b"";
    const GOAWAY_AFTER_IT: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0";
    const CANCEL: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08";
    const REFUSED_AFTER_200: &[u8] = b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07";
    for bytes in [NOTHING, GOAWAY_AFTER_IT, CANCEL, REFUSED_AFTER_200] {
        let api = Api::start(Way::Raw(bytes)).await;
        let result = api.call().await;
        assert!(matches!(result, Err(ApiError::Unknown { code: "connection_lost", .. })), "{bytes:?}: {result:?}");
        assert_eq!(api.counts(), (1, 1), "nothing here sends it again");
    }
}
