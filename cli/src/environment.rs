//! The environment, read once.

/// The API key for the demo API, and the revision that keeps its images apart from those that were paid for.
pub(crate) const DEMO: &str = "demo";

/// The variables that the command reads.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    /// `CREATIVEAI_API_KEY`; never printed.
    pub(crate) api_key: Option<String>,
    /// `PACKSHOT_API_URL`
    pub(crate) api_url: Option<String>,
}

impl Environment {
    /// Reads the process's environment. An empty variable counts as absent.
    pub(crate) fn of_process() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the only place that reads the environment")]
        let get = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        Self { api_key: get("CREATIVEAI_API_KEY"), api_url: get("PACKSHOT_API_URL") }
    }

    /// Without a key and a URL, a run uses the built-in demo API.
    pub(crate) fn uses_demo(&self) -> bool {
        self.api_key.is_none() && self.api_url.is_none()
    }
}
