//! Pass 1: validates the whole file and admits it as a job before anything is sent.
//!
//! It ends with one conditional create. The first splitter's `job.json` is the job, whichever splitter has read the file
//! too; a file that cannot be a catalog gets its `summary.json` instead.

use jiff::Timestamp;

use crate::{
    catalog::{
        reader::{CatalogReader, ReadError},
        validate::{Accepted, Rejected, Validated},
    },
    model::{
        catalog_error::CatalogError,
        event::MetricEvent,
        job::{self, Job, Source},
        keys::{Catalog, JobId, Manifests},
        summary::Summary,
    },
    notify::announce,
    ports::{Ports, StoreError},
    settings::SplitSettings,
    split::{
        error::SplitError,
        input::{SplitInput, header, open},
    },
    storage::Document,
};

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitReport {
    /// A catalog. After [`send`](super::send()) every row has its message or its failed result.
    Split(Box<Job>),
    /// The file cannot be a catalog, and its summary says why. No row was sent.
    Rejected {
        /// Id of the rejected job.
        job: JobId,
        /// Catalog that the key names.
        catalog: Catalog,
        /// What is wrong with the file, and where.
        problem: CatalogError,
    },
    /// The key is not one of a catalog, or the object was replaced or removed after the event. A replacement has its own
    /// event.
    Nothing(&'static str),
}

/// Admits a file. Afterwards `job.json` exists, or the summary of a rejected file; nothing has been sent.
pub async fn admit(ports: &Ports, settings: &SplitSettings, source: &SplitInput) -> Result<SplitReport, SplitError> {
    let Some(catalog) = Catalog::of(&source.key) else {
        return Ok(SplitReport::Nothing("the key is not one of a catalog"));
    };
    let Some((reader, found)) = open(ports, source, &settings.column_map).await? else {
        return Ok(SplitReport::Nothing("the object has been replaced or removed since"));
    };
    let version = source.version_id.as_deref().unwrap_or(&found.etag.0);
    let id = JobId::of(&source.bucket, &source.key, version, &source.edition);
    let document = Document::job(&id);
    let job = match document.read(ports).await? {
        Some(existing) => existing.value,
        None => match validate(reader, settings, &id, &catalog, found.clone(), ports.clock.now(), |_, _, _| ()).await {
            Ok(job) => document.create(ports, job).await?,
            Err(ReadError::Store(error)) => return Err(error.into()),
            Err(ReadError::Catalog(problem)) => {
                reject(ports, &id, &catalog, found, &problem).await?;
                announce(ports, &catalog, &id).await?;
                return Ok(SplitReport::Rejected { job: id, catalog, problem });
            }
        },
    };
    Ok(SplitReport::Split(Box::new(job)))
}

/// Reads the file to its end and validates every row. `on_row` receives each row, its line and its verdict, so that a
/// check before the upload says exactly what the splitter will say.
pub async fn validate(
    mut reader: CatalogReader,
    settings: &SplitSettings,
    id: &JobId,
    catalog: &Catalog,
    source: Source,
    now: Timestamp,
    mut on_row: impl FnMut(u64, u64, &Result<Accepted<'_>, Rejected>),
) -> Result<Job, ReadError> {
    let mut validator = header(&mut reader, &settings.column_map, settings.defaults.clone()).await?;
    let mut job = Job {
        v: job::VERSION,
        job: id.clone(),
        catalog: catalog.clone(),
        source,
        rows: 0,
        valid: 0,
        rejected: 0,
        images: 0,
        continuation_rows: 0,
        format: reader.format(),
        export: validator.columns().export.to_owned(),
        columns: validator.columns().names.clone(),
        mapping: validator.columns().mapping(),
        column_map: settings.column_map.clone(),
        defaults: settings.defaults.clone(),
        created_at: now,
    };
    while let Some(record) = reader.next().await? {
        if validator.continues(&record) {
            job.continuation_rows += 1;
            continue;
        }
        job.rows += 1;
        if job.rows > settings.max_rows {
            let what = format!("more than {} rows; cut the file into several", settings.max_rows);
            return Err(CatalogError::new("too_many_rows", what).on(record.line).into());
        }
        let Validated { verdict, .. } = validator.validate(record)?;
        on_row(job.rows, record.line, &verdict);
        match verdict {
            Ok(accepted) => {
                job.valid += 1;
                job.images += u64::from(accepted.request.n);
            }
            Err(_) => job.rejected += 1,
        }
        if let Some(max) = settings.max_images.filter(|&max| job.images > max) {
            let what =
                format!("asks for more than {max} images, which is what one job may make; cut the file into several");
            return Err(CatalogError::new("too_many_images", what).on(record.line).into());
        }
    }
    // Read again, because the encoding is certain only now: the byte that decides it may be the last of the file.
    job.format = reader.format();
    Ok(job)
}

/// Writes the summary of a rejected file, unless the job has a summary.
async fn reject(
    ports: &Ports,
    id: &JobId,
    catalog: &Catalog,
    source: Source,
    problem: &CatalogError,
) -> Result<(), StoreError> {
    let summary = Summary::rejected(id.clone(), catalog.clone(), source, problem.clone(), ports.clock.now());
    let document = Document::summary(&Manifests::of(catalog, id));
    let before = document.read_or_discard(ports).await?;
    if before.exists() {
        return Ok(());
    }
    document.update(ports, before, |current| current.is_none().then(|| summary.clone())).await?;
    ports.metrics.record(MetricEvent::CatalogRejected);
    Ok(())
}
