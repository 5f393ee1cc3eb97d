//! What an error of the AWS SDK says about whether the call happened. One table for all three services.

use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::chain;

/// Codes that mean "not now", whatever status they come with.
const PASSING_CODES: [&str; 12] = [
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
    /// The request was never valid.
    Unbuildable(String),
    /// No connection came about.
    NotSent(String),
    /// It may have been sent, and no usable answer came.
    Lost(String),
    /// The service said no.
    Answered {
        status: u16,
        /// Empty for answers without a body, such as those to HEAD.
        code: String,
        detail: String,
    },
}

impl Failure {
    pub(crate) fn of<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ConstructionFailure(_) => Self::Unbuildable(chain(error)),
            SdkError::DispatchFailure(_) if never_connected(error) => Self::NotSent(chain(error)),
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                let code = answer.err().code().unwrap_or_default().to_owned();
                let message = answer.err().message().unwrap_or("no message");
                Self::Answered { status, detail: format!("HTTP {status} {code}: {message}"), code }
            }
            _ => Self::Lost(chain(error)),
        }
    }

    /// The service was busy, and says so.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unbuildable(_) => false,
            Self::NotSent(_) | Self::Lost(_) => true,
            Self::Answered { status, code, .. } => {
                *status >= 500 || *status == 429 || PASSING_CODES.contains(&code.as_str())
            }
        }
    }

    pub(crate) fn into_detail(self) -> String {
        match self {
            Self::Unbuildable(detail) | Self::NotSent(detail) | Self::Lost(detail) | Self::Answered { detail, .. } => {
                detail
            }
        }
    }
}

/// The SDK does not say at which point its connection failed; its HTTP client does.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect()) {
            return true;
        }
        source = cause.source();
    }
    false
}
