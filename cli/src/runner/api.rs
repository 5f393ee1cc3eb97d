//! The image API of a run: a real one, or the demo API in this process.

use packshot_aws::api_key::ApiKey;

use crate::{
    demo_api::{DemoApi, DemoApiOptions},
    environment::{DEMO, Environment},
};

const DEFAULT_API_URL: &str = "https://api.creativeai.run";

/// Why there is no API.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("PACKSHOT_API_URL is set and CREATIVEAI_API_KEY is not; set the key (for the demo API, any text)")]
    NoKey,
    /// The key or the URL is malformed, or the demo API does not start.
    #[error("{0}")]
    Unusable(String),
}

/// The image API of a run.
pub(super) struct Api {
    pub(super) url: String,
    pub(super) key: ApiKey,
    demo: Option<DemoApi>,
}

impl Api {
    /// Without a key and a URL, starts the demo API.
    pub(super) async fn start(environment: Environment) -> Result<Self, ApiError> {
        let key = |text: &str| ApiKey::new(text).map_err(|error| ApiError::Unusable(error.to_string()));
        match (environment.api_key, environment.api_url) {
            (Some(text), url) => {
                Ok(Self { url: url.unwrap_or_else(|| DEFAULT_API_URL.into()), key: key(&text)?, demo: None })
            }
            (None, Some(_)) => Err(ApiError::NoKey),
            (None, None) => {
                let demo = DemoApi::start(DemoApiOptions::default()).await;
                let demo = demo.map_err(|error| ApiError::Unusable(format!("the demo API cannot start: {error}")))?;
                Ok(Self { url: demo.base_url().to_owned(), key: key(DEMO)?, demo: Some(demo) })
            }
        }
    }

    pub(super) async fn shutdown(self) {
        if let Some(demo) = self.demo {
            demo.shutdown().await;
        }
    }
}
