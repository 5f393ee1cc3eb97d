//! Fetches the images that the API links to. A link is untrusted input: it may point into our own network. Only https links to
//! public addresses are followed, and no redirects; links into the API's own origin are followed as they are, because an API on
//! loopback links to itself.

use std::{net::IpAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use packshot_pipeline::ports::FetchError;
use reqwest::{Client, StatusCode, Url, redirect::Policy};
use rustls::ClientConfig;

use super::{
    public_address::{NotPublicError, PublicResolver, is_public},
    tls::with_alpn,
};
use crate::error_chain::{causes, with_causes};

/// For one image of a few MiB.
const TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads images into memory.
pub(super) struct ImageFetcher {
    /// Connects to public addresses only.
    public: Client,
    /// For links into the API's own origin.
    api: Client,
    api_base: Url,
}

impl ImageFetcher {
    pub(super) fn new(api_base: Url, tls: &ClientConfig) -> reqwest::Result<Self> {
        let tls = with_alpn(tls, &["h2", "http/1.1"]);
        let client = || {
            let builder =
                Client::builder().tls_backend_preconfigured(tls.clone()).redirect(Policy::none()).referer(false);
            builder.timeout(TIMEOUT).connect_timeout(CONNECT_TIMEOUT)
        };
        Ok(Self {
            // A proxy would resolve the name itself and bypass the check.
            public: client().no_proxy().dns_resolver(PublicResolver).build()?,
            api: if api_base.scheme() == "http" { client().no_proxy() } else { client() }.build()?,
            api_base,
        })
    }

    /// Reads the image behind `link`, up to `max_bytes`.
    pub(super) async fn fetch(&self, link: &str, max_bytes: usize) -> Result<Bytes, FetchError> {
        let refused = |detail: String| FetchError::Refused { detail };
        let url = Url::parse(link).map_err(|error| refused(format!("the link is not a URL: {error}")))?;
        let client = self.client_for(&url).map_err(refused)?;
        let mut response = client.get(url).send().await.map_err(transport_error)?;
        let status = response.status();
        if !status.is_success() {
            return Err(status_error(status));
        }
        let too_large = || refused(format!("the image is larger than {max_bytes} bytes"));
        if response.content_length().is_some_and(|length| length > max_bytes as u64) {
            return Err(too_large());
        }
        let mut image = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(transport_error)? {
            if image.len() + chunk.len() > max_bytes {
                return Err(too_large());
            }
            image.extend_from_slice(&chunk);
        }
        Ok(image.freeze())
    }

    fn client_for(&self, url: &Url) -> Result<&Client, String> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the link holds a user name or a password".into());
        }
        if url.origin() == self.api_base.origin() {
            return Ok(&self.api);
        }
        if url.scheme() != "https" {
            return Err(format!("the link is {}, not https", url.scheme()));
        }
        // The client connects to a literal address without asking the resolver, so it is checked here.
        let host = url.host_str().unwrap_or_default();
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if !is_public(address) => Err(NotPublicError { host: host.to_owned() }.to_string()),
            _ => Ok(&self.public),
        }
    }
}

fn status_error(status: StatusCode) -> FetchError {
    let detail = format!("the image's host answered {status}");
    if status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) {
        FetchError::Unavailable { detail }
    } else {
        FetchError::Refused { detail }
    }
}

fn transport_error(error: reqwest::Error) -> FetchError {
    // A signed link grants access, so it stays out of the error; the result line names it anyway.
    let error = error.without_url();
    match causes(&error).find(|cause| cause.is::<NotPublicError>()) {
        Some(cause) => FetchError::Refused { detail: cause.to_string() },
        None => FetchError::Unavailable { detail: with_causes(&error) },
    }
}

#[cfg(test)]
mod tests {
    use rustls_platform_verifier::ConfigVerifierExt as _;

    use super::*;
    use crate::test_server::TestServer;

    fn fetcher(base: &str) -> ImageFetcher {
        ImageFetcher::new(base.parse().unwrap(), &ClientConfig::with_platform_verifier().unwrap()).unwrap()
    }

    fn refusal(result: Result<Bytes, FetchError>) -> String {
        match result {
            Err(FetchError::Refused { detail }) => detail,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[tokio::test]
    async fn links_into_our_own_network_are_refused_unless_the_api_lives_there() {
        let server = TestServer::answering(&["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nPNG"]).await;
        let fetcher = fetcher(&server.url);
        assert_eq!(fetcher.fetch(&format!("{}/1.png", server.url), 10).await.unwrap(), "PNG");

        let port = server.url.rsplit(':').next().unwrap();
        for (link, reason) in [
            ("http://example.com/1.png".to_owned(), "not https"),
            ("file:///etc/passwd".to_owned(), "not https"),
            ("data:image/png;base64,AAAA".to_owned(), "not https"),
            ("not a link".to_owned(), "not a URL"),
            (format!("https://127.0.0.1:{port}/"), "not a public address"),
            ("https://169.254.169.254/latest/meta-data".to_owned(), "not a public address"),
            ("https://[::ffff:127.0.0.1]/".to_owned(), "not a public address"),
            ("https://0x7f.1/".to_owned(), "not a public address"),
            ("https://2130706433/".to_owned(), "not a public address"),
            ("https://localhost/".to_owned(), "not a public address"),
            (format!("http://localhost:{port}/"), "not https"),
            (format!("http://me:pw@127.0.0.1:{port}/"), "user name"),
        ] {
            let detail = refusal(fetcher.fetch(&link, 10).await);
            assert!(detail.contains(reason), "{link}: {detail}");
        }
        assert_eq!(server.requests().len(), 1);
    }

    #[tokio::test]
    async fn size_redirects_and_statuses() {
        let server = TestServer::answering(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n01234567890",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012",
        ])
        .await;
        let fetcher = fetcher(&server.url);
        let link = format!("{}/1.png", server.url);
        assert!(refusal(fetcher.fetch(&link, 10).await).contains("larger than 10 bytes"));
        assert!(refusal(fetcher.fetch(&link, 10).await).contains("larger than 10 bytes"));
        assert!(refusal(fetcher.fetch(&link, 10).await).contains("302"));
        assert!(refusal(fetcher.fetch(&link, 10).await).contains("403"));
        for _ in 0..2 {
            let result = fetcher.fetch(&link, 10).await;
            assert!(matches!(result, Err(FetchError::Unavailable { .. })), "{result:?}");
        }
    }
}
