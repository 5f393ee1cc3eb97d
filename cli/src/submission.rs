//! The store's side of `packshot submit`: uploads a catalog, polls its job, and downloads its manifest.
//!
//! The job's id follows from the bucket, the key and the version that S3 gives the upload, so the command knows it at once. A
//! poll reads the job's summary, which ends the wait; until then it reads the number of rows from
//! `job.json`, the progress with a [`JobFollower`], and the breaker: an open breaker explains why nothing happens.

use std::{
    io::{self, Write as _},
    path::Path,
};

use futures::{StreamExt as _, TryStreamExt as _};
use packshot_aws::clients::Aws;
use packshot_pipeline::{
    generate::breaker::BreakerFile,
    model::{
        keys::{Catalog, JobId, Manifests},
        summary::{Status, Summary},
    },
    ports::{Ports, Precondition, StoreError},
    storage::{self, Document},
};

use crate::{
    atomic_file::AtomicFile,
    catalog_file::FileError,
    job_progress::{JobFollower, JobProgress},
    jobs::open_breaker,
    target::Target,
};

/// Bytes read from the file at once.
const CHUNK: usize = 256 * 1024;

/// Why a catalog was not uploaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the manifest was not downloaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    #[error("{path}: {error}; the manifest stays at {manifest}")]
    File { path: String, error: io::Error, manifest: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An uploaded catalog.
pub(crate) struct Submission {
    pub(crate) job: JobId,
    pub(crate) files: Manifests,
    ports: Ports,
    follower: JobFollower,
    /// Known once the splitter has read the file.
    rows: Option<u64>,
}

/// What the bucket says about the job at one moment.
pub(crate) struct Snapshot {
    /// Present once the job has ended.
    pub(crate) ended: Option<Summary>,
    /// Present once the splitter has read the file: the progress and the number of rows.
    pub(crate) progress: Option<(JobProgress, u64)>,
    /// Present while no calls are made.
    pub(crate) breaker: Option<BreakerFile>,
}

impl Submission {
    /// Uploads a file as `key`, the catalog `catalog`.
    pub(crate) async fn upload(bucket: &str, path: &Path, key: &str, catalog: &Catalog) -> Result<Self, UploadError> {
        let aws = Aws::load().await;
        let file = tokio::fs::File::open(path).await.map_err(|error| FileError::new(path, error))?;
        let body = tokio_util::io::ReaderStream::with_capacity(file, CHUNK)
            .map_err(|error| StoreError::Refused { detail: error.to_string() });
        let written = aws.store(bucket).upload(key, body.boxed(), &Precondition::None).await?;
        let version = written.version_id.unwrap_or(written.etag.0);
        let job = JobId::of(bucket, key, &version, "");
        let files = Manifests::of(catalog, &job);
        let ports = Target::on_aws(aws, bucket).ports;
        Ok(Self { job, files, ports, follower: JobFollower::default(), rows: None })
    }

    /// Reads how far the job is.
    pub(crate) async fn poll(&mut self) -> Result<Snapshot, StoreError> {
        let summary = Document::summary(&self.files).read_or_discard(&self.ports).await?.value;
        if summary.as_ref().is_some_and(|summary| summary.status != Status::Running) {
            return Ok(Snapshot { ended: summary, progress: None, breaker: None });
        }
        if self.rows.is_none() {
            self.rows = Document::job(&self.job).read_or_discard(&self.ports).await?.value.map(|job| job.rows);
        }
        let progress = match self.rows {
            Some(rows) => Some((self.follower.poll(&self.ports, &self.job, rows, summary.as_ref()).await?, rows)),
            None => None,
        };
        Ok(Snapshot { ended: None, progress, breaker: open_breaker(&self.ports).await? })
    }

    /// Downloads the manifest.
    pub(crate) async fn download(&self, output: &Path) -> Result<(), DownloadError> {
        let key = self.files.manifest();
        let file_error =
            |error| DownloadError::File { path: output.display().to_string(), error, manifest: key.clone() };
        let opened = storage::repeat_read(&self.ports, || self.ports.store.open(&key, None)).await?;
        let mut object = opened.ok_or_else(|| StoreError::Unavailable { detail: format!("{key} does not exist") })?;
        let mut file = AtomicFile::create(output).map_err(file_error)?;
        while let Some(chunk) = object.body.try_next().await? {
            file.file().write_all(&chunk).map_err(file_error)?;
        }
        file.commit().map_err(file_error)
    }
}
