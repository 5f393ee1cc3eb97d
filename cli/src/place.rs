//! Which bucket a command looks at: one on AWS, or a directory.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use packshot_aws::{clients::Aws, clock::SystemClock, unused::Unused};
use packshot_local::DirectoryStore;
use packshot_pipeline::ports::{Nobody, Ports, Store};

/// Where to look.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// The bucket of a deployment; region and account are those of the AWS configuration.
    #[arg(long, conflicts_with = "out")]
    pub bucket: Option<String>,
    /// The directory that is the bucket of a local run.
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
}

/// A bucket, opened.
pub struct Place {
    /// The bucket's or directory's name.
    pub name: String,
    /// The store, and nothing that could call or send.
    pub ports: Ports,
    /// Where the bucket is on AWS.
    pub aws: Option<Aws>,
}

impl PlaceArgs {
    /// Prepares the store; connects to nothing.
    pub async fn open(&self) -> Place {
        match &self.bucket {
            Some(bucket) => Place::on_aws(Aws::load().await, bucket),
            None => {
                let store = Arc::new(DirectoryStore::new(self.out.clone()));
                Place { name: self.out.display().to_string(), ports: ports(store), aws: None }
            }
        }
    }
}

impl Place {
    /// A bucket on AWS.
    #[must_use]
    pub fn on_aws(aws: Aws, bucket: &str) -> Self {
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
        journal: Arc::new(Nobody),
        notices: Arc::new(Nobody),
    }
}
