//! The connections that paid calls are sent over. No connection is ever idle: a dead idle connection shows only after a request
//! was written to it, and then it is unknown whether the call was billed. After a Lambda function was frozen, every idle
//! connection is dead.
//!
//! Over HTTP/2, overlapping calls share a connection, because a handshake costs more than the rest of a call, and the last
//! call closes it. Over HTTP/1.1 each call has its own.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use reqwest::{Client, ClientBuilder, Url};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, sync::OnceCell, time::timeout};
use tokio_rustls::TlsConnector;

use super::tls::with_alpn;

/// Servers allow 100 concurrent streams or more. A lower number loses fewer calls with one connection.
pub(super) const CALLS_PER_CONNECTION: usize = 32;
/// NAT gateways drop a connection that is silent for 350 seconds, and an image of high quality takes minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that does not finish the probe's handshake in this time is called over HTTP/1.1 and not probed again.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Gives each call a client with a live or a new connection.
pub(super) struct Connections {
    /// HTTP/1.1, without a connection pool.
    http1: Arc<Client>,
    /// `None` for an API over plain http.
    http2: Option<Http2Clients>,
}

/// HTTP/2 clients of one connection each. A connection closes when the last call drops its client.
struct Http2Clients {
    server: Server,
    /// The outcome of the probe, which runs once per process.
    supported: OnceCell<bool>,
    open: Mutex<Vec<Weak<Client>>>,
    builder: Box<dyn Fn() -> ClientBuilder + Send + Sync>,
}

struct Server {
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
}

impl Connections {
    /// Prepares the clients; opens no connection. `builder` holds the settings that all clients share.
    pub(super) fn new(
        base: &Url,
        tls: &ClientConfig,
        builder: impl Fn() -> ClientBuilder + Send + Sync + 'static,
    ) -> reqwest::Result<Self> {
        let builder = move || {
            // The client would repeat requests that were certainly not processed; here the caller decides that.
            let builder = builder().retry(reqwest::retry::never());
            builder.connect_timeout(CONNECT_TIMEOUT).tcp_keepalive(KEEP_ALIVE)
        };
        let http1 = builder().tls_backend_preconfigured(with_alpn(tls, &["http/1.1"]));
        let http1 = http1.http1_only().pool_max_idle_per_host(0);
        let host = base.host_str().filter(|_| base.scheme() == "https");
        let http2 = host.zip(base.port_or_known_default()).map(|(host, port)| {
            let tls = with_alpn(tls, &["h2"]);
            let server = Server { host: host.to_owned(), port, tls: Arc::new(tls.clone()) };
            let builder = move || {
                let builder = builder().tls_backend_preconfigured(tls.clone()).http2_prior_knowledge();
                builder.http2_keep_alive_interval(KEEP_ALIVE).http2_keep_alive_timeout(KEEP_ALIVE)
            };
            Http2Clients { server, supported: OnceCell::new(), open: Mutex::default(), builder: Box::new(builder) }
        });
        Ok(Self { http1: Arc::new(http1.build()?), http2 })
    }

    /// Returns a client for one call. The caller holds it until the answer is read.
    pub(super) async fn client(&self) -> reqwest::Result<Arc<Client>> {
        match &self.http2 {
            Some(http2) if *http2.supported.get_or_init(|| http2.server.supports_http2()).await => http2.client(),
            _ => Ok(Arc::clone(&self.http1)),
        }
    }
}

impl Http2Clients {
    fn client(&self) -> reqwest::Result<Arc<Client>> {
        let mut open = self.open.lock();
        open.retain(|client| client.strong_count() > 0);
        let free = open.iter().find(|client| client.strong_count() < CALLS_PER_CONNECTION);
        if let Some(client) = free.and_then(Weak::upgrade) {
            return Ok(client);
        }
        let client = Arc::new((self.builder)().build()?);
        open.push(Arc::downgrade(&client));
        Ok(client)
    }
}

impl Server {
    /// Makes a TLS handshake and sends no request. If it fails, as it does behind a proxy, the call goes over HTTP/1.1 and
    /// reports the reason.
    async fn supports_http2(&self) -> bool {
        let handshake = async {
            let name = ServerName::try_from(self.host.trim_matches(['[', ']'])).ok()?.to_owned();
            let tcp = TcpStream::connect((self.host.trim_matches(['[', ']']), self.port)).await.ok()?;
            let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.ok()?;
            Some(tls.get_ref().1.alpn_protocol() == Some(b"h2"))
        };
        timeout(PROBE_TIMEOUT, handshake).await.ok().flatten().unwrap_or(false)
    }
}
