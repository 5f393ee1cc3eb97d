//! The jobs of a bucket, as their summaries describe them.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use packshot_pipeline::{
    generate::breaker::BreakerFile,
    model::{
        keys::{self, JobId},
        summary::{Summary, Tally},
    },
    ports::{Ports, StoreError},
    storage::{self, Document},
};

/// Summaries read at once.
const READS_AT_ONCE: usize = 32;

/// Why jobs cannot be listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "no job in {target} has an id that begins with `{job}`; `packshot status` without a job lists them. A catalog \
         becomes a job once it has been read: if it was submitted a moment ago, try again"
    )]
    NoSuchJob { job: String, target: String },
    #[error("more than one job has an id that begins with `{0}`; type more of it")]
    Ambiguous(String),
    #[error("{key} cannot be read: {error}")]
    Unreadable { key: String, error: serde_json::Error },
}

/// All jobs, the newest first; if `id` is given, those whose id begins with it.
pub(crate) async fn list(ports: &Ports, id: Option<&str>) -> Result<Vec<Summary>, JobsError> {
    let mut jobs = summaries(ports, id).await?;
    // A job that the splitter has created and the merger has not seen has no summary.
    if jobs.is_empty()
        && let Some(id) = id.and_then(JobId::parse)
        && let Some(job) = Document::job(&id).read_or_discard(ports).await?.value
    {
        jobs.push(Tally::default().so_far(&job));
    }
    jobs.sort_by(|a, b| b.order().cmp(&a.order()));
    Ok(jobs)
}

/// The only job whose id begins with `id`. `target` is the name of the bucket, for the error.
pub(crate) async fn find(ports: &Ports, id: &str, target: &str) -> Result<Summary, JobsError> {
    let mut jobs = list(ports, Some(id)).await?;
    match (jobs.pop(), jobs.is_empty()) {
        (Some(job), true) => Ok(job),
        (Some(_), false) => Err(JobsError::Ambiguous(id.to_owned())),
        (None, _) => Err(JobsError::NoSuchJob { job: id.to_owned(), target: target.to_owned() }),
    }
}

async fn summaries(ports: &Ports, id: Option<&str>) -> Result<Vec<Summary>, JobsError> {
    let listed = storage::list(ports, "manifests/").await?;
    let wanted = listed.into_iter().filter_map(|object| {
        let job = object.key.strip_suffix("/summary.json")?.rsplit('/').next()?;
        JobId::parse(job)?;
        id.is_none_or(|id| job.starts_with(id)).then_some(object.key)
    });
    let read = |key: String| async move {
        let Some(object) = storage::read(ports, &key).await? else { return Ok(None) };
        let summary = serde_json::from_slice::<Summary>(&object.value);
        summary.map(Some).map_err(|error| JobsError::Unreadable { key, error })
    };
    let reads: Vec<_> = wanted.map(read).collect();
    stream::iter(reads)
        .buffer_unordered(READS_AT_ONCE)
        .boxed()
        .try_filter_map(|found| async { Ok(found) })
        .try_collect()
        .await
}

/// The breaker, if it is open: then no calls are made.
pub(crate) async fn open_breaker(ports: &Ports) -> Result<Option<BreakerFile>, StoreError> {
    let breaker = Document::<BreakerFile>::pretty(keys::BREAKER).read_or_discard(ports).await?.value;
    Ok(breaker.filter(|breaker| breaker.open))
}
