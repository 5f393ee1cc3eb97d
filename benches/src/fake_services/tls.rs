//! A certificate for `localhost`, signed by an authority that exists only for this run, and a file that makes clients trust it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use crate::outcome::Outcome;

/// Where Linux keeps the system's root certificates. A client parses all of them at its start, and that cost is part of what
/// is measured.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The TLS side of the ports.
pub(super) struct Certificates {
    /// A file for `SSL_CERT_FILE`: the system's roots and the authority of this run.
    pub(super) trust: PathBuf,
    /// Offers HTTP/1.1 only, as S3 and SQS do.
    pub(super) http1: TlsAcceptor,
    /// Offers HTTP/2 as well.
    pub(super) http2: TlsAcceptor,
}

pub(super) fn certificates(dir: &Path) -> Outcome<Certificates> {
    std::fs::create_dir_all(dir)?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &issuer)?;

    let system = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let trust = std::path::absolute(dir)?.join(format!("roots-{}.pem", std::process::id()));
    std::fs::write(&trust, format!("{system}\n{}", issuer.pem()))?;

    let acceptor = |protocols: &[&str]| -> Outcome<TlsAcceptor> {
        let private = PrivateKeyDer::try_from(key.serialize_der())?;
        let mut config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private)?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    };
    Ok(Certificates { trust, http1: acceptor(&["http/1.1"])?, http2: acceptor(&["h2", "http/1.1"])? })
}
