//! The API key out of AWS Secrets Manager.

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use packshot_pipeline::ports::ApiError;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    key::{ApiKey, KeySource},
    sdk_error::Failure,
};

/// The field of a secret that is a JSON object.
const FIELD: &str = "CREATIVEAI_API_KEY";

/// A secret that holds the key: fetched at the first call, once per process, and again after the API refused it, so that a
/// corrected secret reaches the processes that are already running.
pub struct SecretKey {
    client: Client,
    arn: String,
    known: Mutex<Option<ApiKey>>,
}

impl SecretKey {
    /// The secret with this ARN or name; asks nobody yet.
    #[must_use]
    pub fn new(client: Client, arn: &str) -> Self {
        Self { client, arn: arn.to_owned(), known: Mutex::new(None) }
    }

    async fn fetch(&self) -> Result<ApiKey, ApiError> {
        let answer = self.client.get_secret_value().secret_id(&self.arn).send().await;
        let answer = answer.map_err(|error| {
            let failure = Failure::of(&error);
            let passing = failure.is_passing();
            let detail = format!("the secret {} cannot be read: {}", self.arn, failure.into_detail());
            if passing {
                return ApiError::NotSent { detail };
            }
            let advice = "check the parameter ApiKeySecretArn and the role's secretsmanager:GetSecretValue";
            ApiError::Misconfigured { detail: format!("{detail}; {advice}") }
        })?;
        read_secret(answer.secret_string()).map_err(|problem| ApiError::Misconfigured {
            detail: format!("the secret {} {problem}; store the bare key, or {{\"{FIELD}\": \"…\"}}", self.arn),
        })
    }
}

#[async_trait]
impl KeySource for SecretKey {
    async fn key(&self) -> Result<ApiKey, ApiError> {
        // Held while fetching: calls that start together fetch once, and a failure is not kept.
        let mut known = self.known.lock().await;
        if let Some(key) = &*known {
            return Ok(key.clone());
        }
        let key = self.fetch().await?;
        Ok(known.insert(key).clone())
    }

    async fn rejected(&self, key: &ApiKey) {
        let mut known = self.known.lock().await;
        if known.as_ref() == Some(key) {
            *known = None;
        }
    }
}

/// The key in a secret's text. The problem does not repeat the text.
fn read_secret(text: Option<&str>) -> Result<ApiKey, &'static str> {
    let text = text.ok_or("is binary")?.trim();
    if text.is_empty() {
        return Err("is empty");
    }
    let key = if text.starts_with('{') {
        let object: Value = serde_json::from_str(text).map_err(|_| "begins like JSON and is none")?;
        object.get(FIELD).and_then(Value::as_str).ok_or("is JSON without the field")?.to_owned()
    } else {
        text.to_owned()
    };
    ApiKey::new(&key).map_err(|_| "holds a key that is empty or has characters that no HTTP header can carry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_key_or_names_it() {
        let key = ApiKey::new("sk-live-12345678").unwrap();
        for text in
            ["sk-live-12345678", "sk-live-12345678\n", r#" {"other":1,"CREATIVEAI_API_KEY":"sk-live-12345678"} "#]
        {
            assert_eq!(read_secret(Some(text)), Ok(key.clone()));
        }
    }

    #[test]
    fn a_secret_without_a_key_says_what_is_wrong_and_nothing_else() {
        for (text, part) in [
            (None, "binary"),
            (Some(""), "empty"),
            (Some(" \n"), "empty"),
            (Some(r#"{"key":"sk-live-12345678"}"#), "without the field"),
            (Some(r#"{"CREATIVEAI_API_KEY":1}"#), "without the field"),
            (Some(r#"{"CREATIVEAI_API_KEY":""}"#), "empty"),
            (Some(r#"{"CREATIVEAI_API_KEY":"sk-live"#), "begins like JSON"),
            (Some("sk live"), "characters"),
        ] {
            let problem = read_secret(text).unwrap_err();
            assert!(problem.contains(part) && !problem.contains("sk"), "{text:?}: {problem}");
        }
    }
}
