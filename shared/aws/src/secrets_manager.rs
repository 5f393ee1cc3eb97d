//! The API key from AWS Secrets Manager: read at the first call, cached for the life of the process, and read again after the API
//! refused it, so that a corrected secret reaches processes that are already running.

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use packshot_pipeline::ports::ApiError;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    api_key::{ApiKey, KeySource},
    sdk_error::Failure,
};

/// The field that holds the key if the secret is a JSON object.
const FIELD: &str = "CREATIVEAI_API_KEY";

/// A secret that holds the API key, either bare or as a field of a JSON object.
pub struct SecretsManagerKey {
    client: Client,
    arn: String,
    cached: Mutex<Option<ApiKey>>,
}

impl SecretsManagerKey {
    /// Takes the ARN or the name of the secret; makes no request yet.
    #[must_use]
    pub fn new(client: Client, arn: &str) -> Self {
        Self { client, arn: arn.to_owned(), cached: Mutex::new(None) }
    }

    async fn fetch(&self) -> Result<ApiKey, ApiError> {
        let answer = self.client.get_secret_value().secret_id(&self.arn).send().await;
        let answer = answer.map_err(|error| {
            let failure = Failure::of(&error);
            let transient = failure.is_transient();
            let detail = format!("the secret {} cannot be read: {}", self.arn, failure.into_detail());
            if transient {
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
impl KeySource for SecretsManagerKey {
    async fn key(&self) -> Result<ApiKey, ApiError> {
        // Locked while fetching: concurrent calls fetch once. A failure is not cached.
        let mut cached = self.cached.lock().await;
        if let Some(key) = &*cached {
            return Ok(key.clone());
        }
        let key = self.fetch().await?;
        Ok(cached.insert(key).clone())
    }

    async fn rejected(&self, key: &ApiKey) {
        let mut cached = self.cached.lock().await;
        if cached.as_ref() == Some(key) {
            *cached = None;
        }
    }
}

/// Extracts the key from a secret's text. The error continues the sentence "the secret …" and does not repeat the text.
fn read_secret(text: Option<&str>) -> Result<ApiKey, &'static str> {
    let text = text.ok_or("is binary")?.trim();
    if text.is_empty() {
        return Err("is empty");
    }
    let key = if text.starts_with('{') {
        let object: Value = serde_json::from_str(text).map_err(|_| "begins like JSON but is not valid JSON")?;
        object.get(FIELD).and_then(Value::as_str).ok_or("is JSON without the field")?.to_owned()
    } else {
        text.to_owned()
    };
    ApiKey::new(&key).map_err(|_| "holds a key that is empty or has characters that no HTTP header can carry")
}

#[cfg(test)]
mod tests {
    use aws_sdk_secretsmanager::config::{BehaviorVersion, Builder, Credentials, Region};

    use super::*;
    use crate::test_server::TestServer;

    const ARN: &str = "arn:aws:secretsmanager:eu-central-1:1:secret:key";

    fn secret(server: &TestServer) -> SecretsManagerKey {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-central-1"))
            .credentials_provider(Credentials::new("a", "b", None, None, "test"))
            .retry_config(aws_sdk_secretsmanager::config::retry::RetryConfig::disabled())
            .endpoint_url(&server.url)
            .build();
        SecretsManagerKey::new(Client::from_conf(config), ARN)
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn holding(text: &str) -> String {
        answer("200 OK", &serde_json::json!({ "ARN": ARN, "Name": "key", "SecretString": text }).to_string())
    }

    #[tokio::test]
    async fn an_unusable_secret_is_explained_and_read_again() {
        let error = |kind| answer("400 Bad Request", &format!(r#"{{"__type":"{kind}","message":"no"}}"#));
        for (first, part) in [
            (error("ResourceNotFoundException"), "ResourceNotFoundException"),
            (error("AccessDeniedException"), "role's secretsmanager:GetSecretValue"),
            (error("DecryptionFailure"), "cannot be read"),
            (answer("200 OK", &format!(r#"{{"ARN":"{ARN}","SecretBinary":"c2stbGl2ZS0xMjM0NTY3OA=="}}"#)), "is binary"),
            (holding(""), "is empty"),
            (holding(r#"{"API_KEY":"sk-live-12345678"}"#), r#"store the bare key, or {"CREATIVEAI_API_KEY": "…"}"#),
        ] {
            let server = TestServer::answering(&[&first, &holding("sk-live-12345678")]).await;
            let secret = secret(&server);
            let problem = secret.key().await.unwrap_err();
            // An operator has to act, and the error shows nothing of the secret.
            assert!(matches!(problem, ApiError::Misconfigured { .. }), "{problem:?}");
            let text = problem.to_string();
            assert!(text.contains(part) && text.contains(ARN) && !text.contains("sk-live"), "{text}");
            // Once fixed, the secret is read without a new process.
            assert_eq!(secret.key().await, Ok(ApiKey::new("sk-live-12345678").unwrap()));
        }
    }

    #[tokio::test]
    async fn a_transient_failure_is_not_a_misconfiguration() {
        let throttled = answer("400 Bad Request", r#"{"__type":"ThrottlingException","message":"slow down"}"#);
        for first in [throttled, answer("500 Oops", "{}"), String::new()] {
            let server = TestServer::answering(&[&first]).await;
            let problem = secret(&server).key().await;
            assert!(matches!(problem, Err(ApiError::NotSent { .. })), "{problem:?}");
        }
    }

    #[tokio::test]
    async fn a_secret_is_read_once_until_its_key_is_refused() {
        let server = TestServer::answering(&[&holding("sk-old-12345678"), &holding("sk-new-12345678")]).await;
        let secret = secret(&server);
        let (first, second) = futures::join!(secret.key(), secret.key());
        let old = first.unwrap();
        assert_eq!((second.as_ref(), server.requests().len()), (Ok(&old), 1));
        secret.rejected(&ApiKey::new("sk-another-one").unwrap()).await;
        assert_eq!((secret.key().await.unwrap(), server.requests().len()), (old.clone(), 1));
        secret.rejected(&old).await;
        assert_eq!(secret.key().await, Ok(ApiKey::new("sk-new-12345678").unwrap()));
    }

    #[test]
    fn a_secret_is_the_bare_key_or_json() {
        let key = ApiKey::new("sk-live-12345678").unwrap();
        for text in
            ["sk-live-12345678", "sk-live-12345678\n", r#" {"other":1,"CREATIVEAI_API_KEY":"sk-live-12345678"} "#]
        {
            assert_eq!(read_secret(Some(text)), Ok(key.clone()));
        }
    }

    #[test]
    fn the_error_explains_an_unusable_secret_without_quoting_it() {
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
