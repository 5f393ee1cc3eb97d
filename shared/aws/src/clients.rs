//! The SDK's clients, made once per process.

#[cfg(feature = "lambda")]
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::{
    Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpConnector, http_client_fn};

#[cfg(feature = "lambda")]
use packshot_pipeline::ports::{Nobody, Notices};

#[cfg(feature = "lambda")]
use crate::{notify::SnsTopic, secret::SecretKey};
use crate::{s3::S3Store, sqs::SqsQueue};

/// A part of an upload has 8 MiB; everything else is small.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// AWS, as the environment describes it. `AWS_ENDPOINT_URL` leads to a local one.
pub struct Aws {
    s3: aws_sdk_s3::Client,
    sqs: aws_sdk_sqs::Client,
    #[cfg(feature = "lambda")]
    secrets: aws_sdk_secretsmanager::Client,
    #[cfg(feature = "lambda")]
    sns: aws_sdk_sns::Client,
}

impl Aws {
    /// Reads the SDK's own configuration and prepares the clients; connects to nothing.
    pub async fn load() -> Self {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client())
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build())
            .load()
            .await;
        Self::new(&config)
    }

    /// The clients for a configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        let s3 = aws_sdk_s3::config::Builder::from(config)
            // A local AWS has no DNS name per bucket.
            .force_path_style(config.endpoint_url().is_some())
            // Extra checksums turn streamed bodies into a framing that only S3 itself understands.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Self {
            s3: aws_sdk_s3::Client::from_conf(s3),
            sqs: aws_sdk_sqs::Client::new(config),
            #[cfg(feature = "lambda")]
            secrets: aws_sdk_secretsmanager::Client::new(config),
            #[cfg(feature = "lambda")]
            sns: aws_sdk_sns::Client::new(config),
        }
    }

    /// A bucket.
    #[must_use]
    pub fn store(&self, bucket: &str) -> S3Store {
        S3Store::new(self.s3.clone(), bucket)
    }

    /// A queue.
    #[must_use]
    pub fn queue(&self, url: &str) -> SqsQueue {
        SqsQueue::new(self.sqs.clone(), url)
    }

    /// The client of all queues.
    #[must_use]
    pub fn sqs(&self) -> &aws_sdk_sqs::Client {
        &self.sqs
    }

    /// The API key in a secret.
    #[cfg(feature = "lambda")]
    #[must_use]
    pub fn key(&self, secret_arn: &str) -> SecretKey {
        SecretKey::new(self.secrets.clone(), secret_arn)
    }

    /// Whoever has subscribed to a topic; nobody, where there is none.
    #[cfg(feature = "lambda")]
    #[must_use]
    pub fn notices(&self, topic_arn: Option<&str>) -> Arc<dyn Notices> {
        match topic_arn {
            Some(arn) => Arc::new(SnsTopic::new(self.sns.clone(), arn)),
            None => Arc::new(Nobody),
        }
    }
}

/// One for all services, with the SDK's own choices. Left alone, each of its clients makes one, and reads the system's
/// certificates for it.
fn http_client() -> SharedHttpClient {
    let connector = Connector::builder()
        .connector_settings(HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build())
        .sleep_impl(TokioSleep::new())
        .proxy_config(ProxyConfig::from_env())
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build();
    let connector = SharedHttpConnector::new(connector);
    http_client_fn(move |_, _| connector.clone())
}
