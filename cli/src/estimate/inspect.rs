//! Reads a file as the splitter would.

use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _};
use packshot_aws::clock::SystemClock;
use packshot_pipeline::{
    catalog::{
        reader::{CatalogReader, ReadError},
        validate::{Accepted, Rejected},
    },
    model::{
        catalog_error::CatalogError,
        etag::Etag,
        job::Source,
        keys::{Catalog, JobId},
    },
    ports::{Clock as _, StoreError},
    settings::{GenerateSettings, SplitSettings},
    split::validate,
};

use crate::{
    catalog_file::{self, FileError},
    estimate::{
        builder::{Assumptions, EstimateBuilder},
        check::Check,
    },
    target::Target,
};

/// Bytes read from the file at once.
const CHUNK: usize = 64 * 1024;

/// Why a file cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    /// The file cannot be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file cannot be read to its end, or the ledger cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads a file, and the ledger of `target` if one is given.
pub(crate) async fn inspect(
    path: &Path,
    settings: &SplitSettings,
    target: Option<&Target>,
    assumptions: Assumptions,
) -> Result<Check, InspectError> {
    let file_error = |error| FileError::new(path, error);
    let file = tokio::fs::File::open(path).await.map_err(file_error)?;
    let bytes = file.metadata().await.map_err(file_error)?.len();
    let name = path.display().to_string();
    let key = catalog_file::key(path);
    let Some(catalog) = Catalog::of(&key) else {
        let reason = format!("`{name}` is not the name of a catalog; rename the file to something like shoes.csv");
        return Ok(Check::not_a_catalog(name, CatalogError::new("not_a_catalog", reason)));
    };
    let now = SystemClock.now();
    let source = Source {
        bucket: target.map_or_else(String::new, |target| target.name.clone()),
        key,
        version_id: None,
        etag: Etag(String::new()),
        bytes,
        last_modified: now,
    };
    let job = JobId::of(&source.bucket, &source.key, "", "");
    let body = tokio_util::io::ReaderStream::with_capacity(file, CHUNK)
        .map_err(|error| StoreError::Refused { detail: error.to_string() })
        .boxed();
    let reader = CatalogReader::with_map(body, settings.column_map.clone());
    let mut builder = EstimateBuilder::default();
    let add = |row, line, verdict: &Result<Accepted<'_>, Rejected>| builder.add(row, line, verdict);
    let job = match validate(reader, settings, &job, &catalog, source, now, add).await {
        Ok(job) => job,
        Err(ReadError::Catalog(problem)) => return Ok(Check::not_a_catalog(name, problem)),
        Err(ReadError::Store(error)) => return Err(error.into()),
    };
    let known = match target {
        Some(target) => Some(builder.known(&target.ports, &job.job, GenerateSettings::default().reuse).await?),
        None => None,
    };
    Ok(builder.finish(name, job, known, assumptions))
}
