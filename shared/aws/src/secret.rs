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
    use aws_sdk_secretsmanager::config::{BehaviorVersion, Builder, Credentials, Region};

    use super::*;
    use crate::test_server::TestServer;

    const ARN: &str = "arn:aws:secretsmanager:eu-central-1:1:secret:key";

    fn secret(server: &TestServer) -> SecretKey {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-central-1"))
            .credentials_provider(Credentials::new("a", "b", None, None, "test"))
            .retry_config(aws_sdk_secretsmanager::config::retry::RetryConfig::disabled())
            .endpoint_url(&server.url)
            .build();
        SecretKey::new(Client::from_conf(config), ARN)
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn holding(text: &str) -> String {
        answer("200 OK", &serde_json::json!({ "ARN": ARN, "Name": "key", "SecretString": text }).to_string())
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_secret_is_said_and_asked_for_again() {
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
            // A person has to act, so nobody calls; and nothing of the secret shows.
            assert!(matches!(problem, ApiError::Misconfigured { .. }), "{problem:?}");
            let said = problem.to_string();
            assert!(said.contains(part) && said.contains(ARN) && !said.contains("sk-live"), "{said}");
            // Mended, it is found without a new process.
            assert_eq!(secret.key().await, Ok(ApiKey::new("sk-live-12345678").unwrap()));
        }
    }

    #[tokio::test]
    async fn trouble_that_passes_is_nobodys_fault() {
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
