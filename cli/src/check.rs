//! `packshot check`: what a run would do, without any call.

use std::path::{Path, PathBuf};

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use indicatif::HumanDuration;
use packshot_pipeline::{
    catalog::{
        reader::{CatalogReader, ReadError},
        validate::{Accepted, Rejected},
    },
    check::{Assumed, Check, Found, Survey, Verdict},
    model::{
        catalog_error::NotACatalog,
        etag::Etag,
        job::Source,
        json,
        keys::{self, Catalog, JobId},
    },
    ports::{Clock as _, StoreError},
    settings::{GenerateSettings, SplitSettings},
    split::validate,
};

use crate::{
    command::{EXIT_COULD_NOT, EXIT_DONE, EXIT_SOME_FAILED},
    environment::Environment,
    overrides::Overrides,
    place::{Place, PlaceArgs},
};

/// Bytes of the file that are read at once.
const CHUNK: usize = 64 * 1024;

/// Arguments of `packshot check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot check shoes.csv                             what `packshot run shoes.csv` would do
  packshot check shoes.csv --n 2 --price-per-image 0.17
  packshot check shoes.csv --bucket BUCKET             what of it the deployment has paid for already
  packshot check shoes.csv --json > check.json

Nothing is called, uploaded or written. Cost and time are estimates: price and speed are the API's, and retries come on top.

Exit status: 0 every row is fine, 3 some rows would be rejected, 1 the file cannot be a catalog.")]
pub struct CheckArgs {
    /// The catalog.
    pub catalog: PathBuf,
    /// Print one JSON object (schemas/check.schema.json).
    #[arg(long)]
    pub json: bool,
    /// What to ask for.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Whose ledger tells what is paid for.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// US dollars, for the estimate.
    #[arg(long, value_name = "USD", default_value_t = 0.21, value_parser = price)]
    pub price_per_image: f64,
    /// Calls at once, for the estimate.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// Seconds until an answer comes, for the estimate.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds_per_call: u64,
}

/// Why nothing can be said of a file.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The ledger, or the file in the middle, cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Prints the check and answers with the exit status.
#[expect(clippy::print_stdout, reason = "the check is what the command is for")]
pub async fn run(args: CheckArgs, environment: Environment) -> Result<u8, CheckError> {
    // A run without a key asks the demo API; a deployment never does.
    let demo = args.place.bucket.is_none() && environment.uses_demo();
    let settings = args.overrides.settings(demo);
    let has_ledger = args.place.bucket.is_some() || args.place.out.join("ledger").is_dir();
    let place = if has_ledger { Some(args.place.open().await) } else { None };
    let assumed = Assumed {
        price_per_image: args.price_per_image,
        concurrency: args.concurrency,
        seconds_per_call: args.seconds_per_call,
    };
    let check = inspect(&args.catalog, &settings, place.as_ref(), assumed).await?;
    if args.json {
        print!("{}", String::from_utf8_lossy(&json::to_pretty(&check)));
    } else {
        print!("{}", report(&check, place.as_ref().map(|place| place.name.as_str())));
    }
    Ok(match check.verdict {
        Verdict::Clean => EXIT_DONE,
        Verdict::Rejects => EXIT_SOME_FAILED,
        Verdict::NotACatalog => EXIT_COULD_NOT,
    })
}

/// Reads a file as the splitter would, and asks the ledger of `place`, where there is one.
pub async fn inspect(
    path: &Path,
    settings: &SplitSettings,
    place: Option<&Place>,
    assumed: Assumed,
) -> Result<Check, CheckError> {
    let file_error = |error| CheckError::File { path: path.display().to_string(), error };
    let file = tokio::fs::File::open(path).await.map_err(file_error)?;
    let bytes = file.metadata().await.map_err(file_error)?.len();
    let clock = packshot_aws::clock::SystemClock;
    let named = path.display().to_string();
    let key = incoming_key(path);
    let Some(catalog) = Catalog::of(&key) else {
        let what = format!("`{named}` is not the name of a catalog; rename the file to something like shoes.csv");
        return Ok(Check::not_a_catalog(named, NotACatalog::new("not_a_catalog", what)));
    };
    let source = Source {
        bucket: place.map_or_else(String::new, |place| place.name.clone()),
        key,
        version_id: None,
        etag: Etag(String::new()),
        bytes,
        last_modified: clock.now(),
    };
    let job = JobId::of(&source.bucket, &source.key, "", "");
    let body = tokio_util::io::ReaderStream::with_capacity(file, CHUNK)
        .map_err(|error| StoreError::Refused { detail: error.to_string() })
        .boxed();
    let reader = CatalogReader::with_map(body, settings.column_map.clone());
    let mut survey = Survey::default();
    let judged = |row, line, verdict: &Result<Accepted<'_>, Rejected>| survey.judged(row, line, verdict);
    let read = validate(reader, settings, &job, &catalog, source, clock.now(), judged).await;
    let found = match read {
        Ok(found) => found,
        Err(ReadError::NotACatalog(problem)) => return Ok(Check::not_a_catalog(named, problem)),
        Err(ReadError::Store(error)) => return Err(error.into()),
    };
    let known = match place {
        Some(place) => Some(survey.known(&place.ports, &job, GenerateSettings::default().reuse).await?),
        None => None,
    };
    Ok(survey.finish(named, found, known, assumed))
}

/// Where a file of this name is dropped.
#[must_use]
pub fn incoming_key(path: &Path) -> String {
    format!("{}{}", keys::INCOMING, path.file_name().unwrap_or_default().to_string_lossy())
}

/// The check in words.
#[must_use]
pub fn report(check: &Check, ledger: Option<&str>) -> String {
    let Some(found) = &check.found else {
        let why = check.problem.as_ref().map(ToString::to_string).unwrap_or_default();
        return format!("{} cannot be a catalog: {why}\n", check.file);
    };
    let mut text = format!("{}\n", check.file);
    let mut line = |name: &str, what: String| text.push_str(&format!("  {name:<10} {what}\n"));
    let mapping: Vec<_> = found
        .mapping
        .iter()
        .map(|(ours, theirs)| if ours == theirs { ours.clone() } else { format!("{ours} from `{theirs}`") })
        .collect();
    let kind = if found.export == "packshot" { String::new() } else { format!(", a {} export", found.export) };
    line("format", format!("{}{kind}", found.format));
    line("columns", mapping.join(", "));
    let ignored = found.columns.iter().filter(|name| !found.mapping.values().any(|used| used == *name));
    let ignored: Vec<_> = ignored.map(String::as_str).collect();
    if !ignored.is_empty() {
        line("ignored", ignored.join(", "));
    }
    line("rows", format!("{}: {} fine, {} rejected", found.rows, found.valid, found.rejected));
    if found.continuation_rows > 0 {
        line("continued", format!("{} records only go on with the product above", found.continuation_rows));
    }
    if found.repeated > 0 {
        line("repeated", format!("{} rows ask for the same as another row and share its call", found.repeated));
    }
    line("pictures", pictures(found, ledger));
    let estimate = &found.estimate;
    line(
        "estimate",
        format!(
            "about {:.2} USD at {} USD a picture, about {} with {} calls at once of {} s each. A guess: price and speed \
             are the API's, and retries come on top",
            estimate.cost_usd,
            estimate.price_per_image,
            HumanDuration(std::time::Duration::from_secs(estimate.seconds)),
            estimate.concurrency,
            estimate.seconds_per_call,
        ),
    );
    let aws = &estimate.aws;
    line(
        "on AWS",
        format!(
            "about {:.2} USD more for Lambda, S3, SQS and logs, and {:.2} USD a month for what is kept (docs/cost.md)",
            aws.total_usd, aws.storage_usd_per_month
        ),
    );
    text.push_str(&rejects(found, usize::MAX));
    text
}

fn pictures(found: &Found, ledger: Option<&str>) -> String {
    let mut text = format!("{} to make, with {} calls", found.to_make.images, found.to_make.calls);
    if let (Some(known), Some(ledger)) = (found.known, ledger) {
        text.push_str(&format!("; {} are paid for already, says the ledger in {ledger}", known.images));
    }
    text
}

/// The rejected rows by their reasons, of each the first `shown`; nothing where there are none.
#[must_use]
pub fn rejects(found: &Found, shown: usize) -> String {
    let mut text = String::new();
    if found.rejected > 0 {
        text.push_str(&format!("{} rows are rejected; each becomes a failed line, without a call:\n", found.rejected));
    }
    for group in &found.rejects {
        text.push_str(&format!("  {} × {}\n", group.count, group.code));
        let first = &group.first[..group.first.len().min(shown)];
        for reject in first {
            text.push_str(&format!("    {}\n", reject.message));
        }
        let more = group.count - first.len() as u64;
        if more > 0 {
            text.push_str(&format!("    … and {more} more\n"));
        }
    }
    text
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(price) if (0.0..=1_000.0).contains(&price) => Ok(price),
        _ => Err("not a price from 0 to 1000".into()),
    }
}
