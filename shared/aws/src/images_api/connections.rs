//! The connections of the paid calls. No connection is ever idle: one that was may be found dead only after a request went
//! into it, and then nobody knows whether the call was billed. In a Lambda function that was frozen all of them are dead.
//!
//! Over HTTP/2 calls that overlap share a connection, because a handshake costs more than everything else that a call does
//! here, and the last of them closes it. Over HTTP/1.1 each call has its own.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use reqwest::{Client, ClientBuilder, Url};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, sync::OnceCell, time::timeout};
use tokio_rustls::TlsConnector;

/// Servers allow a hundred at least. Fewer are less to lose with one connection.
const CALLS_PER_CONNECTION: usize = 32;
/// NAT gateways forget a connection that is silent for 350 seconds, and a good picture takes minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Whoever does not answer this quickly is called over HTTP/1.1, and asked no more.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct Connections {
    /// HTTP/1.1, without a pool.
    single: Arc<Client>,
    shared: Option<Shared>,
}

/// HTTP/2, if the server speaks it. Each client here holds one connection for as long as calls hold the client.
struct Shared {
    server: Server,
    speaks_http2: OnceCell<bool>,
    open: Mutex<Vec<Weak<Client>>>,
    builder: Box<dyn Fn() -> ClientBuilder + Send + Sync>,
}

struct Server {
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
}

/// The same, offering these protocols.
pub(crate) fn speaking(tls: &ClientConfig, protocols: &[&str]) -> ClientConfig {
    let mut tls = tls.clone();
    tls.alpn_protocols = protocols.iter().map(|&protocol| protocol.into()).collect();
    tls
}

impl Connections {
    /// `builder` gives what the clients have in common; connects to nothing.
    pub(super) fn new(
        base: &Url,
        tls: &ClientConfig,
        builder: impl Fn() -> ClientBuilder + Send + Sync + 'static,
    ) -> reqwest::Result<Self> {
        let builder = move || {
            // What certainly was not processed comes back as not sent, and the caller decides.
            let builder = builder().retry(reqwest::retry::never());
            builder.connect_timeout(CONNECT_TIMEOUT).tcp_keepalive(KEEP_ALIVE)
        };
        let single = builder().tls_backend_preconfigured(speaking(tls, &["http/1.1"]));
        let single = single.http1_only().pool_max_idle_per_host(0);
        let host = base.host_str().filter(|_| base.scheme() == "https");
        let shared = host.zip(base.port_or_known_default()).map(|(host, port)| {
            let tls = speaking(tls, &["h2"]);
            let server = Server { host: host.to_owned(), port, tls: Arc::new(tls.clone()) };
            let builder = move || {
                let builder = builder().tls_backend_preconfigured(tls.clone()).http2_prior_knowledge();
                builder.http2_keep_alive_interval(KEEP_ALIVE).http2_keep_alive_timeout(KEEP_ALIVE)
            };
            Shared { server, speaks_http2: OnceCell::new(), open: Mutex::default(), builder: Box::new(builder) }
        });
        Ok(Self { single: Arc::new(single.build()?), shared })
    }

    /// A client for one call, to be held until the answer was read.
    pub(super) async fn client(&self) -> reqwest::Result<Arc<Client>> {
        match &self.shared {
            Some(shared) if *shared.speaks_http2.get_or_init(|| shared.server.speaks_http2()).await => shared.client(),
            _ => Ok(Arc::clone(&self.single)),
        }
    }
}

impl Shared {
    fn client(&self) -> reqwest::Result<Arc<Client>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
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
    /// A handshake, and no request. Where it fails the call over HTTP/1.1 finds out why; behind a proxy it fails, too.
    async fn speaks_http2(&self) -> bool {
        let handshake = async {
            let name = ServerName::try_from(self.host.trim_matches(['[', ']'])).ok()?.to_owned();
            let tcp = TcpStream::connect((self.host.trim_matches(['[', ']']), self.port)).await.ok()?;
            let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.ok()?;
            Some(tls.get_ref().1.alpn_protocol() == Some(b"h2"))
        };
        timeout(ASK_TIMEOUT, handshake).await.ok().flatten().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests;
