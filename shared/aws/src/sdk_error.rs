//! Reduces the errors of the AWS SDK to what the adapters decide by: was the request sent, was it answered, and is the failure
//! transient. All four services share one table.

use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::error_chain::{causes, with_causes};

/// Codes of transient failures, whatever the HTTP status is.
const TRANSIENT_CODES: [&str; 12] = [
    "InternalError",
    "InternalServerError",
    "KmsThrottled",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
];

/// How a call ended without success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The SDK could not build the request.
    InvalidRequest(String),
    /// No connection was made.
    NotSent(String),
    /// The request may have been sent, and no usable answer arrived.
    Lost(String),
    /// The service answered with an error.
    Answered {
        status: u16,
        /// The service's error code; empty for answers without a body, such as those to HEAD.
        code: String,
        detail: String,
    },
}

impl Failure {
    /// Classifies an error of any operation.
    pub(crate) fn of<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ConstructionFailure(_) => Self::InvalidRequest(with_causes(error)),
            SdkError::DispatchFailure(_) if never_connected(error) => Self::NotSent(with_causes(error)),
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                let code = answer.err().code().unwrap_or_default().to_owned();
                let message = answer.err().message().unwrap_or("no message");
                Self::Answered { status, detail: format!("HTTP {status} {code}: {message}"), code }
            }
            _ => Self::Lost(with_causes(error)),
        }
    }

    /// Whether the same call may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::InvalidRequest(_) => false,
            Self::NotSent(_) | Self::Lost(_) => true,
            Self::Answered { status, code, .. } => {
                *status >= 500 || *status == 429 || TRANSIENT_CODES.contains(&code.as_str())
            }
        }
    }

    /// The text for an error message.
    pub(crate) fn into_detail(self) -> String {
        match self {
            Self::InvalidRequest(detail)
            | Self::NotSent(detail)
            | Self::Lost(detail)
            | Self::Answered { detail, .. } => detail,
        }
    }
}

/// Whether the connection failed before the request was sent. Only the SDK's HTTP client knows that.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<hyper_util::client::legacy::Error>())
        .any(|error| error.is_connect())
}
