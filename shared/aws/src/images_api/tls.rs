//! One TLS configuration for all HTTP clients, varied by the protocols it offers. Reading the system's certificates is the most
//! expensive part of a start, so the clients share one configuration and change only its ALPN list.

use rustls::ClientConfig;

/// A copy of `tls` that offers `protocols` in the handshake (ALPN), the preferred one first.
pub(super) fn with_alpn(tls: &ClientConfig, protocols: &[&str]) -> ClientConfig {
    let mut tls = tls.clone();
    tls.alpn_protocols = protocols.iter().map(|&protocol| protocol.into()).collect();
    tls
}
