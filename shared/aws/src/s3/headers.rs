//! Converts between S3's headers and the store's types: preconditions, ETags, metadata, content types.

use aws_sdk_s3::primitives::DateTime;
use jiff::Timestamp;
use packshot_pipeline::{
    model::etag::Etag,
    ports::{ObjectMeta, Precondition, StoreError},
};

/// The values of the headers `If-None-Match` and `If-Match`.
pub(super) fn conditions(precondition: &Precondition) -> (Option<String>, Option<String>) {
    match precondition {
        Precondition::None => (None, None),
        Precondition::Absent => (Some("*".into()), None),
        Precondition::Matches(etag) => (None, Some(quoted(etag))),
    }
}

/// Removes the quotes of an ETag header. S3's events hold ETags without quotes, so without them the two can be compared.
pub(super) fn etag(header: Option<&str>, key: &str) -> Result<Etag, StoreError> {
    let bare = header.map(|header| header.trim_matches('"')).filter(|bare| !bare.is_empty());
    bare.map(|bare| Etag(bare.to_owned())).ok_or_else(|| StoreError::Refused { detail: format!("no ETag for {key}") })
}

/// An ETag as `If-Match` needs it.
pub(super) fn quoted(etag: &Etag) -> String {
    format!("\"{etag}\"")
}

pub(super) fn meta(
    etag_header: Option<&str>,
    length: Option<i64>,
    modified: Option<&DateTime>,
    key: &str,
) -> Result<ObjectMeta, StoreError> {
    let refused = |what| StoreError::Refused { detail: format!("no {what} for {key}") };
    Ok(ObjectMeta {
        etag: etag(etag_header, key)?,
        bytes: length.and_then(|length| length.try_into().ok()).ok_or_else(|| refused("length"))?,
        last_modified: modified
            .and_then(|modified| Timestamp::from_second(modified.secs()).ok())
            .ok_or_else(|| refused("date"))?,
    })
}

/// The `Content-Type` for a key, by its extension.
pub(super) fn content_type(key: &str) -> &'static str {
    match key.rsplit_once('.').map(|(_, extension)| extension) {
        Some("json") => "application/json",
        Some("jsonl") => "application/x-ndjson",
        Some("csv") => "text/csv; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("gif") => "image/gif",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_compared_without_their_quotes() {
        assert_eq!(etag(Some("\"abc-2\""), "k").unwrap(), Etag("abc-2".into()));
        assert_eq!(etag(Some("abc-2"), "k").unwrap(), Etag("abc-2".into()));
        assert_eq!(quoted(&Etag("abc-2".into())), "\"abc-2\"");
        etag(None, "k").unwrap_err();
        etag(Some("\"\""), "k").unwrap_err();
    }

    #[test]
    fn content_types_follow_the_extension() {
        assert_eq!(content_type("manifests/a/latest.json"), "application/json");
        assert_eq!(content_type("a.b/manifest.jsonl"), "application/x-ndjson");
        assert_eq!(content_type("a/failed.csv"), "text/csv; charset=utf-8");
        assert_eq!(content_type("a/review.html"), "text/html; charset=utf-8");
        assert_eq!(content_type("images/1.png"), "image/png");
        assert_eq!(content_type("a.b/none"), "application/octet-stream");
    }
}
