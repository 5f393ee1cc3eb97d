//! Classifies failed calls: who is at fault, and what the generator does next.
//!
//! The error code in the body decides first, then the HTTP status. docs/errors.md shows the same table.

use std::time::Duration;

use crate::ports::ApiError;

/// What to do after a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Fail the row now.
    Row,
    /// Call again up to the limit, after this long at the earliest.
    Transient(Option<Duration>),
    /// Suspend calls for this long, then call again. Does not count as an attempt.
    Throttled(Option<Duration>),
    /// The account cannot be used: suspend calls for all rows.
    Account,
    /// The call may have been billed: count it, then call again up to the limit.
    Unknown,
}

/// Verdicts by `error.code`. The code comes first, because providers use different statuses: an empty balance is 402 or 429.
const BY_CODE: &[(&str, Verdict)] = &[
    ("insufficient_quota", Verdict::Account),
    ("insufficient_credits", Verdict::Account),
    ("insufficient_balance", Verdict::Account),
    ("billing_hard_limit_reached", Verdict::Account),
    ("billing_not_active", Verdict::Account),
    ("account_deactivated", Verdict::Account),
    ("account_suspended", Verdict::Account),
    ("invalid_api_key", Verdict::Account),
    ("moderation_blocked", Verdict::Row),
    ("content_policy_violation", Verdict::Row),
    ("invalid_image_url", Verdict::Row),
    ("image_too_large", Verdict::Row),
    ("rate_limit_exceeded", Verdict::Throttled(None)),
    ("server_error", Verdict::Transient(None)),
    ("overloaded", Verdict::Transient(None)),
];

/// The verdict by HTTP status, for codes that are not in the table.
fn by_status(status: u16) -> Verdict {
    match status {
        401..=403 => Verdict::Account,
        408 | 409 | 425 => Verdict::Transient(None),
        429 => Verdict::Throttled(None),
        400..=499 => Verdict::Row,
        // A redirect means that the base URL is wrong, which is no row's fault.
        300..=399 => Verdict::Account,
        _ => Verdict::Transient(None),
    }
}

/// The verdict on a failed call.
#[must_use]
pub fn verdict(error: &ApiError) -> Verdict {
    match error {
        ApiError::NotSent { .. } => Verdict::Transient(None),
        ApiError::Unknown { .. } => Verdict::Unknown,
        ApiError::Misconfigured { .. } => Verdict::Account,
        ApiError::Answered { status, code, retry_after, .. } => {
            let by_code = code.as_deref().and_then(|code| BY_CODE.iter().find(|(known, _)| *known == code));
            match by_code.map_or_else(|| by_status(*status), |(_, verdict)| *verdict) {
                Verdict::Transient(_) => Verdict::Transient(*retry_after),
                Verdict::Throttled(_) => Verdict::Throttled(*retry_after),
                other => other,
            }
        }
    }
}

/// The `error_code` that a failed call gives its result.
#[must_use]
pub fn error_code(error: &ApiError) -> String {
    match error {
        ApiError::NotSent { .. } => "not_reached".into(),
        ApiError::Unknown { code, .. } => (*code).into(),
        ApiError::Misconfigured { .. } => "misconfigured".into(),
        ApiError::Answered { code: Some(code), .. } => code.clone(),
        ApiError::Answered { status, .. } => format!("http_{status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_first_then_status() {
        let second = Some(Duration::from_secs(1));
        for (status, code, expected) in [
            (402, Some("insufficient_quota"), Verdict::Account),
            (429, Some("insufficient_quota"), Verdict::Account),
            (429, Some("rate_limit_exceeded"), Verdict::Throttled(second)),
            (429, None, Verdict::Throttled(second)),
            (400, Some("rate_limit_exceeded"), Verdict::Throttled(second)),
            (403, Some("moderation_blocked"), Verdict::Row),
            (403, None, Verdict::Account),
            (401, None, Verdict::Account),
            (400, None, Verdict::Row),
            (404, Some("something new"), Verdict::Row),
            (413, None, Verdict::Row),
            (422, None, Verdict::Row),
            (408, None, Verdict::Transient(second)),
            (409, None, Verdict::Transient(second)),
            (425, None, Verdict::Transient(second)),
            (500, None, Verdict::Transient(second)),
            (503, Some("overloaded"), Verdict::Transient(second)),
            (302, None, Verdict::Account),
        ] {
            let error =
                ApiError::Answered { status, code: code.map(str::to_owned), body: String::new(), retry_after: second };
            assert_eq!(verdict(&error), expected, "{status} {code:?}");
        }
    }
}
