//! `packshot run`: the three use cases on one machine, with a directory as the bucket and a queue in memory.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    num::NonZeroU32,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use clap::Args;
use jiff::Timestamp;
use packshot_aws::{clock::SystemClock, images_api::ImagesApi, key::ApiKey};
use packshot_local::{DirectoryStore, MemoryQueue, NotifyingStore};
use packshot_pipeline::{
    generate::{generate, worker::Worker},
    merge::{Changed, merge},
    model::{
        catalog_error::NotACatalog,
        format::Format,
        job::Job,
        json,
        keys::{self, Catalog, Manifests},
        summary::{Status, Summary},
    },
    ports::{Clock as _, Nobody, Outgoing, Ports, Precondition, Queue, QueueError, StoreError},
    settings::{AccountPolicy, GenerateSettings, SplitSettings},
    split::{self, SplitError, SplitInput, SplitReport},
    storage,
};
use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    check::incoming_key,
    command::{EXIT_ACCOUNT, EXIT_DONE, EXIT_INTERRUPTED, EXIT_SOME_FAILED},
    environment::Environment,
    overrides::{DEMO, Overrides},
    progress::Progress,
    stub_api::{StubApi, StubOptions},
};

const DEFAULT_API_URL: &str = "https://api.creativeai.run";
const BUCKET: &str = "local";
const LOCK: &str = ".packshot.lock";
/// How often results are merged and the progress is shown.
const TICK: Duration = Duration::from_millis(500);
const MERGE_EVERY: u32 = 4;
/// One process holds the queue: a message that is being worked on is not given to another.
const VISIBILITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// A message that came back this often will not be handled in this run.
const MAX_RECEIVES: u32 = 100;
/// Calls of full length for which a row may wait that asks for the same as another row; it looks once a second.
const CALLS_WAITED_FOR: u32 = 8;
/// Bytes of the catalog that are read at once.
const CHUNK: usize = 64 * 1024;
/// Messages that wait in memory: enough that no worker waits for the splitter.
const QUEUE: usize = 1024;
const QUEUE_PER_WORKER: usize = 4;

/// Arguments of `packshot run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot run events/catalog.csv                     with the built-in demo API: nothing is charged
  CREATIVEAI_API_KEY=… packshot run shoes.csv         with the real one
  packshot run shoes.csv --n 2 --concurrency 12 --output shoes.jsonl

The same command again goes on where it was stopped, tries failed rows again, and calls for no row that is completed.

Environment:
  CREATIVEAI_API_KEY   the API key
  PACKSHOT_API_URL     base URL of the API (default https://api.creativeai.run)

Exit status: 0 all rows completed, 1 rejected or could not run, 2 usage, 3 some rows failed, 4 the API account cannot pay.")]
pub struct RunArgs {
    /// The catalog: a CSV with the columns sku, title, image_url.
    pub catalog: PathBuf,
    /// The directory that is the bucket.
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Also write the manifest there.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Calls at once.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// What to ask for.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Calls started per minute, at most.
    #[arg(long, value_name = "N")]
    pub rpm: Option<NonZeroU32>,
    /// Make every row anew, whatever has been paid for already.
    #[arg(long, conflicts_with = "revision")]
    pub fresh: bool,
    /// What an empty balance does: stop calling and keep the rest for later, or fail each row.
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = OnAccountError::Pause)]
    pub account_errors: OnAccountError,
    /// Seconds after which a call is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Do not keep the pictures under DIR/images.
    #[arg(long)]
    pub no_archive: bool,
}

/// What an empty balance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnAccountError {
    /// No further call; the rows wait for the next run. Exit status 4.
    Pause,
    /// Each row gets its failed result.
    Fail,
}

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The catalog cannot be read.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// Another run works on the directory.
    #[error("{dir} is in use by another run ({holder}); wait for it, or choose another --out")]
    Locked {
        /// The directory.
        dir: String,
        /// Who holds it.
        holder: String,
    },
    /// An API without a key.
    #[error("PACKSHOT_API_URL is set and CREATIVEAI_API_KEY is not; set the key (for the demo API, any text)")]
    NoKey,
    /// The key or the URL is malformed.
    #[error("{0}")]
    Api(String),
    /// The file cannot be a catalog.
    #[error("{path} is rejected: {problem}\nNothing was called. See {summary}")]
    Rejected {
        /// The file.
        path: String,
        /// Why.
        problem: Box<NotACatalog>,
        /// Where the summary stands.
        summary: String,
    },
    /// The directory does not do as asked.
    #[error("{0}; what is done is kept, run the same command again")]
    Split(#[from] SplitError),
    /// The directory does not do as asked.
    #[error("{0}; what is done is kept, run the same command again")]
    Store(#[from] StoreError),
    /// Rows have neither a result nor a place in the queue.
    #[error(
        "{0} rows could not be handled; what is done is kept, run the same command again with --verbose to see why"
    )]
    Stuck(u64),
}

/// Runs a catalog to its end and answers with the exit status.
pub async fn run(args: RunArgs, environment: Environment) -> Result<u8, RunError> {
    let mut file = File::open(&args.catalog).map_err(|error| file_error(&args.catalog, error))?;
    std::fs::create_dir_all(&args.out).map_err(|error| file_error(&args.out, error))?;
    let _lock = lock(&args.out)?;
    let progress = Progress::new();
    let api = Api::choose(environment, &progress).await?;
    let settings = generate_settings(&args);
    let split_settings = split_settings(&args, &api);
    if let (true, Some(revision)) = (args.fresh, &split_settings.defaults.revision) {
        progress.say(&format!("Everything is made anew. To go on with this run later: --revision {revision}"));
    }
    let (changes, changed) = mpsc::unbounded_channel();
    let host = Arc::new(Host::new(&args, settings, &api, changes)?);
    let source = host.upload(&args.catalog, &mut file, &split_settings).await?;
    // The user asks for calls now, whatever the last run was told.
    host.worker.breaker.close(&host.ports).await?;
    let ended = host.clone().work(source, split_settings, args.concurrency, changed, progress).await;
    api.shutdown().await;
    host.report(&args, ended?).await
}

fn file_error(path: &Path, error: std::io::Error) -> RunError {
    RunError::File { path: path.display().to_string(), error }
}

/// Holds the directory for this process, so that claims of a killed run are known to be dead.
fn lock(dir: &Path) -> Result<File, RunError> {
    let path = dir.join(LOCK);
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(|error| file_error(&path, error))?;
    if file.try_lock().is_err() {
        let mut holder = String::new();
        // Only for the message: an unreadable file names nobody.
        let _ = file.read_to_string(&mut holder);
        return Err(RunError::Locked { dir: dir.display().to_string(), holder: holder.trim().to_owned() });
    }
    let holder = format!("process {}, since {}\n", std::process::id(), SystemClock.now());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(holder.as_bytes()))
        .map_err(|error| file_error(&path, error))?;
    Ok(file)
}

/// The API of this run.
struct Api {
    url: String,
    key: ApiKey,
    demo: Option<StubApi>,
}

impl Api {
    async fn choose(environment: Environment, progress: &Progress) -> Result<Self, RunError> {
        let key = |text: &str| ApiKey::new(text).map_err(|error| RunError::Api(error.to_string()));
        match (environment.api_key, environment.api_url) {
            (Some(text), url) => {
                Ok(Self { url: url.unwrap_or_else(|| DEFAULT_API_URL.into()), key: key(&text)?, demo: None })
            }
            (None, Some(_)) => Err(RunError::NoKey),
            (None, None) => {
                let demo = StubApi::start(StubOptions::default()).await;
                let demo = demo.map_err(|error| RunError::Api(format!("the demo API cannot start: {error}")))?;
                progress.say(
                    "No CREATIVEAI_API_KEY is set: using the built-in demo API. It draws its own pictures; nothing is charged.",
                );
                Ok(Self { url: demo.base_url().to_owned(), key: key(DEMO)?, demo: Some(demo) })
            }
        }
    }

    async fn shutdown(self) {
        if let Some(demo) = self.demo {
            demo.shutdown().await;
        }
    }
}

fn generate_settings(args: &RunArgs) -> GenerateSettings {
    GenerateSettings {
        request_timeout: Duration::from_secs(args.timeout),
        requests_per_minute: args.rpm,
        archive: !args.no_archive,
        account_errors: match args.account_errors {
            OnAccountError::Pause => AccountPolicy::Pause,
            OnAccountError::Fail => AccountPolicy::Fail,
        },
        sole_worker: true,
        ..GenerateSettings::default()
    }
}

fn split_settings(args: &RunArgs, api: &Api) -> SplitSettings {
    let fresh = args.fresh.then(|| SystemClock.now().to_string());
    let overrides = Overrides { revision: args.overrides.revision.clone().or(fresh), ..args.overrides.clone() };
    overrides.settings(api.demo.is_some())
}

/// How the work ended.
enum Ended {
    /// Every row has a result.
    Job(Box<Job>),
    /// The user stopped it.
    Interrupted,
    /// The account is not well.
    Account(Box<Job>),
}

/// One process that is all three functions.
struct Host {
    ports: Ports,
    rows: Arc<MemoryQueue>,
    dead: Arc<MemoryQueue>,
    settings: GenerateSettings,
    worker: Worker,
    out: PathBuf,
    /// The splitter is through: an empty queue is the end.
    all_sent: AtomicBool,
    /// Messages that have been handled.
    handled: AtomicU64,
    /// No worker takes another message.
    stopping: AtomicBool,
}

impl Host {
    fn new(
        args: &RunArgs,
        settings: GenerateSettings,
        api: &Api,
        changes: mpsc::UnboundedSender<String>,
    ) -> Result<Self, RunError> {
        let clock = Arc::new(SystemClock);
        let images = ImagesApi::new(&api.url, settings.request_timeout, Arc::new(api.key.clone()), clock.clone())
            .map_err(|error| RunError::Api(error.to_string()))?;
        let dead = Arc::new(MemoryQueue::new(VISIBILITY, None, None));
        let looks = u32::try_from(settings.request_timeout.as_secs()).unwrap_or(u32::MAX);
        let receives = MAX_RECEIVES.saturating_add(looks.saturating_mul(CALLS_WAITED_FOR));
        let rows = MemoryQueue::new(VISIBILITY, Some(receives), Some(dead.clone()));
        let rows = Arc::new(rows.bounded(QUEUE.max(QUEUE_PER_WORKER * usize::from(args.concurrency))));
        let worker = Worker::new(&*clock, &settings);
        let directory = DirectoryStore::new(args.out.clone());
        // The directory is ours, so what is half written there a killed run has left.
        directory.sweep()?;
        let ports = Ports {
            store: Arc::new(NotifyingStore::new(directory, changes)),
            rows: rows.clone(),
            retry: Arc::new(Forgotten),
            images: Arc::new(images),
            clock,
            journal: Arc::new(Nobody),
            notices: Arc::new(Nobody),
        };
        Ok(Self {
            ports,
            rows,
            dead,
            settings,
            worker,
            out: args.out.clone(),
            all_sent: AtomicBool::new(false),
            handled: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        })
    }

    /// Drops the file into the bucket, unless it lies there already.
    async fn upload(&self, path: &Path, file: &mut File, settings: &SplitSettings) -> Result<SplitInput, RunError> {
        let key = incoming(path);
        let mut hash = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            match file.read(&mut buffer).map_err(|error| file_error(path, error))? {
                0 => break,
                read => hash.update(&buffer[..read]),
            }
        }
        file.rewind().map_err(|error| file_error(path, error))?;
        let version: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let marker = format!("control/uploads/{}.txt", key.trim_start_matches(keys::INCOMING));
        let known = storage::read(&self.ports, &marker).await?;
        if known.is_none_or(|seen| seen.bytes != version.as_bytes()) || self.ports.store.head(&key).await?.is_none() {
            let copy = file.try_clone().map_err(|error| file_error(path, error))?;
            let body = tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::from_std(copy), CHUNK);
            let body = futures::TryStreamExt::map_err(body, |error| StoreError::Refused { detail: error.to_string() });
            self.ports.store.put_stream(&key, Box::pin(body), Precondition::None).await?;
            storage::write(&self.ports, &marker, version.clone().into(), Precondition::None).await?;
        }
        Ok(SplitInput {
            bucket: BUCKET.into(),
            key,
            version_id: Some(version),
            etag: None,
            // On one machine people choose the options per run, so other options are another job.
            edition: edition(settings),
            // Every row without a completed result is sent again: the queue does not outlive the process.
            round: u64::try_from(self.ports.clock.now().as_millisecond()).unwrap_or_default(),
        })
    }

    /// Splits, generates and merges until every row has its result, or something ends it before.
    async fn work(
        self: Arc<Self>,
        source: SplitInput,
        settings: SplitSettings,
        concurrency: u16,
        mut changed: mpsc::UnboundedReceiver<String>,
        mut progress: Progress,
    ) -> Result<Ended, RunError> {
        let path = self.out.join(&source.key).display().to_string();
        let job = match split::admit(&self.ports, &settings, &source).await? {
            SplitReport::Split(job) => job,
            SplitReport::Rejected { job, catalog, problem } => {
                let summary = self.path(&Manifests::of(&catalog, &job).summary());
                return Err(RunError::Rejected { path, problem: Box::new(problem), summary });
            }
            SplitReport::Nothing(why) => {
                let problem = NotACatalog::new("not_a_catalog", why);
                return Err(RunError::Rejected {
                    path,
                    problem: Box::new(problem),
                    summary: self.out.display().to_string(),
                });
            }
        };
        progress.say(&announcement(&job));
        let mut tasks = JoinSet::new();
        for _ in 0..concurrency {
            tasks.spawn(self.clone().worker());
        }
        let sender = tasks.spawn(self.clone().send((*job).clone(), source));
        let (mut ticks, mut interrupts) = (0u32, 0u32);
        let mut changes = BTreeSet::new();
        let mut failed = None;
        // One listener all along: a new one would not know of what was pressed while something was merged.
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        while !tasks.is_empty() {
            tokio::select! {
                biased;
                _ = &mut interrupt => {
                    interrupt.set(tokio::signal::ctrl_c());
                    interrupts += 1;
                    if interrupts > 1 {
                        tasks.abort_all();
                    } else {
                        self.stop();
                        progress.say("Stopping: waiting for the calls in flight, which are paid for. Ctrl-C again abandons them.");
                    }
                }
                Some(ended) = tasks.join_next() => {
                    if !matches!(ended, Ok(Ok(()))) {
                        failed = failed.or(ended.ok().and_then(Result::err));
                        self.stop();
                    }
                }
                () = tokio::time::sleep(TICK) => {
                    ticks += 1;
                    while let Ok(key) = changed.try_recv() {
                        changes.insert(key);
                    }
                    if ticks.is_multiple_of(MERGE_EVERY) && !changes.is_empty() {
                        self.merge(std::mem::take(&mut changes)).await;
                    }
                    progress.update(job.rejected + self.handled.load(Ordering::Relaxed), job.rows, "");
                    self.stop_if_done();
                }
            }
            if self.stopping.load(Ordering::Relaxed) {
                // It may be waiting for room that nobody makes any more.
                sender.abort();
            }
        }
        progress.finish();
        if let Some(error) = failed {
            return Err(error.into());
        }
        tokio::select! {
            biased;
            merged = self.merge_all(&job) => merged?,
            _ = &mut interrupt => interrupts += 1,
        }
        if interrupts > 0 {
            return Ok(Ended::Interrupted);
        }
        if self.worker.breaker.opened().is_some() {
            return Ok(Ended::Account(job));
        }
        Ok(Ended::Job(job))
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.rows.wake();
    }

    fn stop_if_done(&self) {
        let done = self.all_sent.load(Ordering::Relaxed) && self.rows.is_empty();
        if done || self.worker.breaker.opened().is_some() {
            self.stop();
        }
    }

    async fn send(self: Arc<Self>, job: Job, source: SplitInput) -> Result<(), SplitError> {
        split::send(&self.ports, &job, &source, Timestamp::MAX).await?;
        self.all_sent.store(true, Ordering::Relaxed);
        self.stop_if_done();
        Ok(())
    }

    async fn worker(self: Arc<Self>) -> Result<(), SplitError> {
        while !self.stopping.load(Ordering::Relaxed) {
            for delivery in self.rows.receive(1).await {
                let receipt = delivery.receipt.clone();
                let back = generate(&self.ports, &self.settings, &self.worker, vec![delivery], Timestamp::MAX).await;
                if back.is_empty() {
                    self.rows.delete(&receipt);
                    self.handled.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.stop_if_done();
        }
        Ok(())
    }

    async fn merge(&self, keys: BTreeSet<String>) {
        let changed = Changed { id: "local".into(), keys: keys.into_iter().collect() };
        // What fails here is merged at the end, where it is an error.
        let failed = merge(&self.ports, vec![changed]).await;
        tracing::debug!(?failed, "merged");
    }

    async fn merge_all(&self, job: &Job) -> Result<(), RunError> {
        let first_rows = (0..keys::parts(job.rows)).map(|part| *keys::rows_of_part(part, job.rows).start());
        let keys = std::iter::once(keys::job(&job.job)).chain(first_rows.map(|row| keys::result(&job.job, row, "")));
        let changed = Changed { id: job.job.to_string(), keys: keys.collect() };
        if merge(&self.ports, vec![changed]).await.is_empty() {
            return Ok(());
        }
        Err(StoreError::Unavailable { detail: "the results could not be merged".into() }.into())
    }

    fn path(&self, key: &str) -> String {
        self.out.join(key).display().to_string()
    }

    /// Says how it ended.
    async fn report(&self, args: &RunArgs, ended: Ended) -> Result<u8, RunError> {
        let job = match ended {
            Ended::Interrupted => {
                eprintln!("Stopped. What is done is kept; the same command goes on.");
                return Ok(EXIT_INTERRUPTED);
            }
            Ended::Account(job) => {
                self.say_account_is_not_well(&job).await?;
                return Ok(EXIT_ACCOUNT);
            }
            Ended::Job(job) => job,
        };
        let files = Manifests::of(&job.catalog, &job.job);
        let Some(summary) = self.summary(&files).await?.filter(|summary| summary.status != Status::Running) else {
            return Err(RunError::Stuck(self.dead.len() as u64));
        };
        if let Some(output) = &args.output {
            copy_whole(&self.out.join(files.manifest()), output).map_err(|error| file_error(output, error))?;
        }
        say_top_errors(&summary);
        if summary.counts.failed > 0 {
            eprintln!(
                "The failed rows stand in {}; the same command tries again what can heal.",
                self.path(&files.failed_csv())
            );
        }
        let pictures = self.out.join("images").join(job.catalog.as_str());
        if !args.no_archive && pictures.is_dir() {
            eprintln!("The pictures stand in {}", pictures.display());
        }
        let output = args.output.clone().unwrap_or_else(|| self.out.join(files.manifest()));
        Ok(say_done(&summary, &output))
    }

    async fn summary(&self, files: &Manifests) -> Result<Option<Summary>, StoreError> {
        let seen = storage::read(&self.ports, &files.summary()).await?;
        Ok(seen.and_then(|seen| serde_json::from_slice(&seen.bytes).ok()))
    }

    async fn say_account_is_not_well(&self, job: &Job) -> Result<(), StoreError> {
        let reason = self.worker.breaker.opened().map(|file| file.reason).unwrap_or_default();
        let done = self.handled.load(Ordering::Relaxed);
        eprintln!(
            "The API account cannot be charged, so packshot stopped calling: {reason}\n\
             {done} of {} valid rows have their result and are kept; no other row was called for or failed.\n\
             Top up the balance or correct the key, then run the same command again: it goes on with the rest.",
            job.valid
        );
        Ok(())
    }
}

/// The retry queue: what would be redriven is sent again by the same command.
struct Forgotten;

#[async_trait]
impl Queue for Forgotten {
    async fn send(&self, _: &[Outgoing]) -> Result<(), QueueError> {
        Ok(())
    }

    async fn delay(&self, _: &str, _: Duration) -> Result<(), QueueError> {
        Ok(())
    }
}

/// Where a file is dropped. One whose name says nothing is taken for a CSV; its bytes will tell.
fn incoming(path: &Path) -> String {
    let key = incoming_key(path);
    if Catalog::of(&key).is_some() {
        return key;
    }
    let stem = path.file_stem().map_or_else(|| "catalog".into(), |stem| stem.to_string_lossy());
    format!("{}{stem}.csv", keys::INCOMING)
}

/// What of the settings makes another job of the same file.
fn edition(settings: &SplitSettings) -> String {
    let mut edition = json::to_string(&settings.defaults);
    if !settings.column_map.is_empty() {
        edition.push_str(&json::to_string(&settings.column_map));
    }
    edition
}

/// How the file was read, where a person should know.
fn recognised(job: &Job) -> Option<String> {
    let renamed: Vec<String> = job
        .mapping
        .iter()
        .filter(|(ours, theirs)| ours != theirs)
        .map(|(ours, theirs)| format!("{ours} from `{theirs}`"))
        .collect();
    if renamed.is_empty() && (Format { line_ending: None, ..job.format.clone() }) == Format::default() {
        return None;
    }
    let kind = if job.export == "packshot" { String::new() } else { format!(", a {} export", job.export) };
    Some([format!("Read as {}{kind}", job.format)].into_iter().chain(renamed).collect::<Vec<_>>().join(", "))
}

fn announcement(job: &Job) -> String {
    let mut text = format!("{} rows, {} pictures to make", job.rows, job.images);
    if job.rejected > 0 {
        text.push_str(&format!("; {} rows are rejected", job.rejected));
    }
    if job.continuation_rows > 0 {
        text.push_str(&format!("; {} records only go on with the product above", job.continuation_rows));
    }
    if let Some(recognised) = recognised(job) {
        text.push_str(&format!("\n{recognised}"));
    }
    text
}

/// Says what failed most.
pub(crate) fn say_top_errors(summary: &Summary) {
    for error in &summary.top_errors {
        eprintln!("{} × {}: {}", error.count, error.error_code, first_line(&error.example));
    }
}

/// The last line of a job, and its exit status.
#[expect(clippy::print_stdout, reason = "the Done line is what the command is for")]
pub(crate) fn say_done(summary: &Summary, output: &Path) -> u8 {
    let counts = &summary.counts;
    println!("Done. completed={}, failed={}, output={}", counts.completed, counts.failed, output.display());
    if counts.failed == 0 { EXIT_DONE } else { EXIT_SOME_FAILED }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Copies so that nobody sees half a manifest.
fn copy_whole(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = to.with_file_name(name);
    std::fs::copy(from, &part)?;
    std::fs::rename(&part, to)
}
