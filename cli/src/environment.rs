//! The environment, read once.

/// What the command takes from the environment.
#[derive(Clone, Default)]
pub struct Environment {
    /// `CREATIVEAI_API_KEY`; never printed.
    pub api_key: Option<String>,
    /// `PACKSHOT_API_URL`
    pub api_url: Option<String>,
}

impl Environment {
    /// Reads the process's environment. An empty variable counts as absent.
    #[must_use]
    pub fn of_process() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the one gate")]
        let get = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        Self { api_key: get("CREATIVEAI_API_KEY"), api_url: get("PACKSHOT_API_URL") }
    }

    /// Neither a key nor an API is named, so the built-in demo API answers.
    #[must_use]
    pub fn uses_demo(&self) -> bool {
        self.api_key.is_none() && self.api_url.is_none()
    }
}
