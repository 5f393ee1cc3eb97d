//! The harness's side of the fake services: starts `bench fake-services` as a process of its own, so that its CPU and memory
//! are not counted as the product's, reads the environment that it prints, and sends it commands over HTTP.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use packshot_benches::samples::BUCKET;

use super::counters::Counts;
use crate::outcome::Outcome;

/// The running process. It is killed when this is dropped.
pub(crate) struct FakeServices {
    child: Child,
    pub(crate) url: String,
    /// What a function or the command needs to reach the services.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) http: reqwest::Client,
}

impl FakeServices {
    pub(crate) async fn start(dir: &Path, arguments: &[&str]) -> Outcome<Self> {
        let dir = dir.display().to_string();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["fake-services", "--dir", &dir]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let mut environment = Vec::new();
        for line in BufReader::new(output).lines() {
            match line?.split_once('=') {
                Some((name, value)) => environment.push((name.to_owned(), value.to_owned())),
                None => break,
            }
        }
        let url = environment.iter().find(|(name, _)| name == "FAKE_SERVICES_URL").map(|(_, url)| url.clone());
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { url: url.ok_or("the fake services did not start")?, child, environment, http })
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The value of one variable of the environment, or "".
    pub(crate) fn variable(&self, name: &str) -> &str {
        self.environment.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// Sends a command; `fake_services/control.rs` lists them.
    pub(crate) async fn command(&self, command: &str) -> Outcome<String> {
        let answer = self.http.get(format!("{}/_bench/{command}", self.url)).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if status.is_success() { Ok(text) } else { Err(text.into()) }
    }

    /// The requests since the last time, by access key. Resets the counts.
    pub(crate) async fn counts(&self) -> Outcome<BTreeMap<String, Counts>> {
        Ok(serde_json::from_str(&self.command("counts").await?)?)
    }

    /// One count, summed over all access keys. Resets all counts.
    pub(crate) async fn count(&self, count: impl Fn(&Counts) -> u64) -> Outcome<u64> {
        Ok(self.counts().await?.values().map(count).sum())
    }

    pub(crate) async fn object(&self, key: &str) -> Outcome<String> {
        let answer = self.http.get(format!("{}/{BUCKET}/{key}", self.url)).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }
}

impl Drop for FakeServices {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
