//! Maps the errors of S3 calls to [`StoreError`], which tells the caller what to do. The same failure means different things for
//! a read and for a write: a read that may have happened can be repeated, a write may not be.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use packshot_pipeline::ports::StoreError;

use crate::sdk_error::Failure;

/// The kind of a call: only a write may do harm if it is repeated without reading first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Whether the object does not exist. A missing bucket does not count, except after HEAD, whose answer has no body to tell the
/// two apart.
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
    map_failure(Failure::of(error), access, key)
}

fn map_failure(failure: Failure, access: Access, key: &str) -> StoreError {
    let write = access == Access::Write;
    let transient = failure.is_transient();
    match failure {
        Failure::Answered { status: 412, .. } => StoreError::Conflict { key: key.to_owned() },
        // If-Match on an object that does not exist.
        Failure::Answered { status: 404, code, .. } if write && code != "NoSuchBucket" && code != "NoSuchUpload" => {
            StoreError::Conflict { key: key.to_owned() }
        }
        // The bucket's lifecycle rule or a person aborted the multipart upload: the caller may write the object again.
        Failure::Answered { status: 404, code, detail } if code == "NoSuchUpload" => {
            StoreError::Unavailable { detail: format!("{key}: {detail}") }
        }
        // Concurrent conditional writes; possibly none of them succeeded.
        Failure::Answered { status: 409, detail, .. } => StoreError::Unavailable { detail: format!("{key}: {detail}") },
        Failure::Answered { status: 403, detail, .. } => StoreError::Refused {
            detail: format!("{key}: {detail} (without s3:ListBucket a missing key answers 403 too)"),
        },
        // 500, 502 and 504 leave open whether the write happened; 503 "Slow Down" means that it did not.
        Failure::Answered { status: 500 | 502 | 504, detail, .. } | Failure::Lost(detail) if write => {
            StoreError::Unknown { detail: format!("{key}: {detail}") }
        }
        failure if transient => StoreError::Unavailable { detail: format!("{key}: {}", failure.into_detail()) },
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
    fn each_failure_maps_to_one_store_error() {
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
            (Failure::InvalidRequest("no bucket".into()), Write, "refused"),
            (Failure::InvalidRequest("no bucket".into()), Read, "refused"),
        ] {
            let error = map_failure(failure.clone(), access, "a/b.json");
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
    fn a_403_names_the_permission_that_is_often_missing() {
        let error = map_failure(answered(403, "AccessDenied"), Access::Read, "k");
        assert!(error.to_string().contains("s3:ListBucket"), "{error}");
    }
}
