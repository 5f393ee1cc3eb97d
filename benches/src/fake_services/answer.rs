//! HTTP answers as every fake service builds them.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) fn status(code: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = code;
    answer
}

pub(super) fn typed(code: StatusCode, content_type: &'static str, text: String) -> Answer {
    let mut answer = status(code, text);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Refuses a request that no fake service implements. A default answer would let a measurement go on with wrong data.
pub(super) fn unsupported(what: &str) -> Answer {
    status(StatusCode::NOT_IMPLEMENTED, format!("the fake services do not support this: {what}"))
}
