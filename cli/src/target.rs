//! The bucket that a command reads: one on AWS, or the directory of a local run.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use packshot_aws::{clients::Aws, clock::SystemClock, unused::Unused};
use packshot_local::DirectoryStore;
use packshot_pipeline::ports::{NoopNotifier, NoopRecorder, Ports, Store};

/// Options that name the bucket.
#[derive(Debug, Clone, Args)]
pub(crate) struct TargetArgs {
    /// Bucket of a deployment. Region and account come from the AWS configuration (AWS_PROFILE, AWS_REGION).
    #[arg(long, conflicts_with = "out")]
    pub(crate) bucket: Option<String>,
    /// Directory that `packshot run --out` has written.
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub(crate) out: PathBuf,
}

/// A bucket to read.
pub(crate) struct Target {
    /// The name of the bucket or directory.
    pub(crate) name: String,
    /// The store. The other ports cannot call or send.
    pub(crate) ports: Ports,
    /// The clients for the bucket's account; absent for a directory.
    pub(crate) aws: Option<Aws>,
}

impl TargetArgs {
    /// Prepares the store; connects to nothing.
    pub(crate) async fn open(&self) -> Target {
        match &self.bucket {
            Some(bucket) => Target::on_aws(Aws::load().await, bucket),
            None => {
                let store = Arc::new(DirectoryStore::new(self.out.clone()));
                Target { name: self.out.display().to_string(), ports: ports(store), aws: None }
            }
        }
    }
}

impl Target {
    /// A bucket on AWS.
    pub(crate) fn on_aws(aws: Aws, bucket: &str) -> Self {
        let store = Arc::new(aws.store(bucket));
        Self { name: bucket.to_owned(), ports: ports(store), aws: Some(aws) }
    }
}

fn ports(store: Arc<dyn Store>) -> Ports {
    let unused = Arc::new(Unused);
    Ports {
        store,
        rows: unused.clone(),
        retry: unused.clone(),
        images: unused,
        clock: Arc::new(SystemClock),
        metrics: Arc::new(NoopRecorder),
        notifier: Arc::new(NoopNotifier),
    }
}
