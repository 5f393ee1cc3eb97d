//! Reads what the API sends back: the images of a success, the error code and the `Retry-After` of a refusal. Every text is
//! redacted before it leaves this module, because some APIs repeat the key.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use packshot_pipeline::{
    model::text::shorten,
    ports::{ApiError, Generated, GeneratedImage},
};
use reqwest::StatusCode;
use serde_json::Value;

use crate::api_key::ApiKey;

/// How many bytes of an error body are read at all.
pub(super) const MAX_ERROR_READ: usize = 64 * 1024;
/// How many bytes of an unusable success body are quoted in the error.
const MAX_EXCERPT: usize = 512;
/// A longer `Retry-After` is taken for a mistake.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Parses the body of a success. The call may have been billed, so a body without usable images is [`ApiError::Unknown`].
pub(super) fn parse_success(body: &[u8], status: StatusCode, key: &ApiKey) -> Result<Generated, ApiError> {
    let unusable = |code, what: &str| {
        let detail = format!("HTTP {} {what}: {}", status.as_u16(), excerpt(body, MAX_EXCERPT, key));
        ApiError::Unknown { code, status: Some(status.as_u16()), detail }
    };
    let answer: Value = serde_json::from_slice(body).map_err(|_| unusable("invalid_answer", "without valid JSON"))?;
    let entries = answer.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let images: Vec<GeneratedImage> = entries.iter().filter_map(|entry| image(entry, key)).collect();
    if images.is_empty() {
        return Err(unusable("no_images", "without any image"));
    }
    let text = |field: &str| match answer.get(field)? {
        Value::String(text) if !text.is_empty() => Some(key.redact_result(text)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    Ok(Generated { request_id: text("id"), model_actual: text("model_actual"), images })
}

/// One entry of `data`: a link or base64 bytes; `None` for anything else.
fn image(entry: &Value, key: &ApiKey) -> Option<GeneratedImage> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(url) = text("url") {
        return Some(GeneratedImage::Url(key.redact_result(url)));
    }
    // Some APIs send a data URL instead of the bare base64.
    let base64 = text("b64_json")?.rsplit(',').next()?;
    let bytes = BASE64_STANDARD.decode(base64).ok().filter(|bytes| !bytes.is_empty())?;
    Some(GeneratedImage::Inline(bytes.into()))
}

/// The error code in a body: `error.code`, else `error.type`, else `code`, else `error`. Only a single word counts; a
/// sentence is for people.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error").unwrap_or(&Value::Null);
    let is_word = |text: &&str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    [error.get("code"), error.get("type"), body.get("code"), Some(error)]
        .into_iter()
        .find_map(|value| value.and_then(Value::as_str).filter(is_word))
        .map(str::to_owned)
}

/// Parses a `Retry-After` value: seconds or an HTTP date. A date in the past means now; more than a day, or anything that does
/// not parse, is ignored.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => {
            let date = Timestamp::try_from(httpdate::parse_http_date(value).ok()?).ok()?;
            Duration::try_from(date.duration_since(now)).unwrap_or_default()
        }
    };
    (wait <= MAX_RETRY_AFTER).then_some(wait)
}

/// The body as text without the key, at most `limit` bytes.
pub(super) fn excerpt(body: &[u8], limit: usize, key: &ApiKey) -> String {
    // Redacted before it is cut, so that no half of a key remains.
    shorten(key.redact(&String::from_utf8_lossy(&body[..body.len().min(MAX_ERROR_READ)])), limit)
}

#[cfg(test)]
mod tests {
    use packshot_pipeline::ports::Clock as _;

    use super::*;
    use crate::clock::FixedClock;

    #[test]
    fn error_codes_are_single_words() {
        for (body, code) in [
            (r#"{"error":{"code":"a","type":"b"}}"#, Some("a")),
            (r#"{"error":{"code":null,"type":"b"}}"#, Some("b")),
            (r#"{"error":{"code":402,"type":"insufficient_quota"}}"#, Some("insufficient_quota")),
            (r#"{"error":{"code":"You have no money"}}"#, None),
            (r#"{"error":"rate_limited"}"#, Some("rate_limited")),
            (r#"{"error":"please wait"}"#, None),
            (r#"{"code":"c","message":"m"}"#, Some("c")),
            (r#"{"error":{"code":""}}"#, None),
            ("[]", None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(error_code(body.as_bytes()).as_deref(), code, "{body}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let seconds = |value| retry_after(value, FixedClock.now()).map(|wait| wait.as_secs_f64());
        for (value, expected) in [
            ("0", Some(0.0)),
            (" 30 ", Some(30.0)),
            ("1.5", Some(1.5)),
            ("86400", Some(86_400.0)),
            ("86401", None),
            ("1000000000", None),
            ("99999999999999999999999", None),
            ("-1", None),
            ("NaN", None),
            ("inf", None),
            ("soon", None),
            ("", None),
            ("Sun, 01 Mar 2026 12:01:00 GMT", Some(60.0)),
            ("Sun, 01 Mar 2026 11:00:00 GMT", Some(0.0)),
            ("Sun, 01 Mar 2099 12:00:00 GMT", None),
            ("2026-03-01", None),
        ] {
            assert_eq!(seconds(value), expected, "{value:?}");
        }
    }
}
