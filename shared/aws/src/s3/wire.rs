//! Between S3's words and ours: preconditions, identities, types and, above all, errors.

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    primitives::DateTime,
};
use jiff::Timestamp;
use packshot_pipeline::{
    model::etag::Etag,
    ports::{ObjectMeta, Precondition, StoreError},
};

use crate::sdk_error::Failure;

/// Whether repeating a call without looking could do harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// The values of `If-None-Match` and `If-Match`.
pub(super) fn conditions(precondition: &Precondition) -> (Option<String>, Option<String>) {
    match precondition {
        Precondition::None => (None, None),
        Precondition::Absent => (Some("*".into()), None),
        Precondition::Matches(etag) => (None, Some(quoted(etag))),
    }
}

/// ETags stand in quotes on the wire and without them in S3's events; ours have none, so that they can be compared.
pub(super) fn etag(wire: Option<&str>, key: &str) -> Result<Etag, StoreError> {
    let bare = wire.map(|wire| wire.trim_matches('"')).filter(|bare| !bare.is_empty());
    bare.map(|bare| Etag(bare.to_owned())).ok_or_else(|| StoreError::Refused { detail: format!("no ETag for {key}") })
}

pub(super) fn quoted(etag: &Etag) -> String {
    format!("\"{etag}\"")
}

pub(super) fn meta(
    wire_etag: Option<&str>,
    length: Option<i64>,
    modified: Option<&DateTime>,
    key: &str,
) -> Result<ObjectMeta, StoreError> {
    let refused = |what| StoreError::Refused { detail: format!("no {what} for {key}") };
    Ok(ObjectMeta {
        etag: etag(wire_etag, key)?,
        bytes: length.and_then(|length| length.try_into().ok()).ok_or_else(|| refused("length"))?,
        last_modified: modified
            .and_then(|modified| Timestamp::from_second(modified.secs()).ok())
            .ok_or_else(|| refused("date"))?,
    })
}

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

/// No such object; a bucket that is not there is another matter, but an answer to HEAD has no body to say which it is.
pub(super) fn is_missing<E>(error: &SdkError<E>) -> bool
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    matches!(Failure::of(error), Failure::Answered { status: 404, code, .. } if code != "NoSuchBucket")
}

pub(super) fn store_error<E>(error: &SdkError<E>, access: Access, key: &str) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    verdict(Failure::of(error), access, key)
}

fn verdict(failure: Failure, access: Access, key: &str) -> StoreError {
    let write = access == Access::Write;
    let passing = failure.is_passing();
    match failure {
        Failure::Answered { status: 412, .. } => StoreError::Conflict { key: key.to_owned() },
        // If-Match on an object that is gone.
        Failure::Answered { status: 404, code, .. } if write && code != "NoSuchBucket" && code != "NoSuchUpload" => {
            StoreError::Conflict { key: key.to_owned() }
        }
        // The bucket's lifecycle rule, or a person, ended an upload of ours: the whole may be tried again.
        Failure::Answered { status: 404, code, detail } if code == "NoSuchUpload" => {
            StoreError::Unavailable { detail: format!("{key}: {detail}") }
        }
        // Two conditional writes met; neither has to have won.
        Failure::Answered { status: 409, detail, .. } => StoreError::Unavailable { detail: format!("{key}: {detail}") },
        Failure::Answered { status: 403, detail, .. } => StoreError::Refused {
            detail: format!("{key}: {detail} (without s3:ListBucket a missing key answers 403 too)"),
        },
        // "Internal error" and "bad gateway" do not say how far the write came; "slow down" does.
        Failure::Answered { status: 500 | 502 | 504, detail, .. } | Failure::Lost(detail) if write => {
            StoreError::Unknown { detail: format!("{key}: {detail}") }
        }
        failure if passing => StoreError::Unavailable { detail: format!("{key}: {}", failure.into_detail()) },
        failure => StoreError::Refused { detail: format!("{key}: {}", failure.into_detail()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, code: &str) -> Failure {
        Failure::Answered { status, code: code.into(), detail: format!("HTTP {status} {code}: why") }
    }

    #[test]
    fn every_end_of_a_call_says_what_to_do() {
        use Access::{Read, Write};
        let lost = || Failure::Lost("connection reset".into());
        for (failure, access, word) in [
            (answered(412, "PreconditionFailed"), Write, "conflict"),
            (answered(412, "PreconditionFailed"), Read, "conflict"),
            (answered(404, "NoSuchKey"), Write, "conflict"),
            (answered(404, ""), Write, "conflict"),
            (answered(404, "NoSuchBucket"), Write, "refused"),
            (answered(404, "NoSuchBucket"), Read, "refused"),
            (answered(404, "NoSuchUpload"), Write, "unavailable"),
            (answered(404, "NoSuchUpload"), Read, "unavailable"),
            (answered(409, "ConditionalRequestConflict"), Write, "unavailable"),
            (answered(409, "OperationAborted"), Write, "unavailable"),
            (answered(503, "SlowDown"), Write, "unavailable"),
            (answered(503, "SlowDown"), Read, "unavailable"),
            (answered(503, ""), Read, "unavailable"),
            (answered(429, "TooManyRequests"), Write, "unavailable"),
            (answered(400, "RequestTimeout"), Write, "unavailable"),
            (answered(500, "InternalError"), Write, "unknown"),
            (answered(504, ""), Write, "unknown"),
            (answered(500, "InternalError"), Read, "unavailable"),
            (answered(200, "InternalError"), Write, "unavailable"),
            (answered(403, "AccessDenied"), Write, "refused"),
            (answered(403, ""), Read, "refused"),
            (answered(400, "InvalidRequest"), Write, "refused"),
            (answered(301, "PermanentRedirect"), Read, "refused"),
            (lost(), Write, "unknown"),
            (lost(), Read, "unavailable"),
            (Failure::NotSent("refused".into()), Write, "unavailable"),
            (Failure::Unbuildable("no bucket".into()), Write, "refused"),
            (Failure::Unbuildable("no bucket".into()), Read, "refused"),
        ] {
            let error = verdict(failure.clone(), access, "a/b.json");
            let got = match error {
                StoreError::Conflict { .. } => "conflict",
                StoreError::Unavailable { .. } => "unavailable",
                StoreError::Unknown { .. } => "unknown",
                StoreError::Refused { .. } => "refused",
            };
            assert_eq!(got, word, "{failure:?} of a {access:?}");
            assert!(error.to_string().contains("a/b.json"), "{error}");
        }
    }

    #[test]
    fn a_403_names_the_permission_that_is_easily_forgotten() {
        let error = verdict(answered(403, "AccessDenied"), Access::Read, "k");
        assert!(error.to_string().contains("s3:ListBucket"), "{error}");
    }

    #[test]
    fn etags_are_compared_without_their_quotes() {
        assert_eq!(etag(Some("\"abc-2\""), "k").unwrap(), Etag("abc-2".into()));
        assert_eq!(etag(Some("abc-2"), "k").unwrap(), Etag("abc-2".into()));
        assert_eq!(quoted(&Etag("abc-2".into())), "\"abc-2\"");
        etag(None, "k").unwrap_err();
        etag(Some("\"\""), "k").unwrap_err();
    }

    #[test]
    fn types_by_extension() {
        assert_eq!(content_type("manifests/a/latest.json"), "application/json");
        assert_eq!(content_type("a.b/manifest.jsonl"), "application/x-ndjson");
        assert_eq!(content_type("a/failed.csv"), "text/csv; charset=utf-8");
        assert_eq!(content_type("a/review.html"), "text/html; charset=utf-8");
        assert_eq!(content_type("images/1.png"), "image/png");
        assert_eq!(content_type("a.b/none"), "application/octet-stream");
    }
}
