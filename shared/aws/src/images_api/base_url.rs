//! The base URL of the images API: https, or http on this machine, so that the key never crosses a network unencrypted.

use std::net::IpAddr;

use reqwest::Url;

/// Parses the base URL. The error is a sentence that says what is wrong with it.
pub fn parse_base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| format!("`{text}` is not a URL ({error})"))?;
    if !url.username().is_empty() || url.password().is_some() {
        // The text is not repeated: it may contain the key.
        return Err("the API's base URL must not hold a user name or a password".into());
    }
    let host = url.host_str().unwrap_or_default();
    let local = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        _ if url.query().is_some() || url.fragment().is_some() => Err(format!("`{text}` holds a query or a fragment")),
        "https" => Ok(url),
        "http" if local => Ok(url),
        "http" => Err(format!("`{text}` would send the API key unencrypted; use https")),
        _ => Err(format!("`{text}` is not an https URL")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_or_this_machine() {
        for good in [
            "https://api.creativeai.run",
            "https://x.test/base/",
            "http://127.0.0.1:9",
            "http://[::1]:9",
            "http://localhost:9/",
        ] {
            parse_base_url(good).unwrap();
        }
        for (bad, part) in [
            ("", "not a URL"),
            ("api.creativeai.run", "not a URL"),
            ("ftp://x.test", "not an https URL"),
            ("http://api.creativeai.run", "unencrypted"),
            ("http://localhost.evil.test", "unencrypted"),
            ("https://x.test/?a=b", "query"),
        ] {
            let problem = parse_base_url(bad).unwrap_err();
            assert!(problem.contains(part), "{bad}: {problem}");
        }
        assert!(!parse_base_url("https://sk-live-1@x.test").unwrap_err().contains("sk-live"));
    }
}
