//! One large catalog through all three functions. The harness does what AWS does between them: it polls the queues in batches
//! with a batching window, and delivers failed messages again. A sampler records memory and CPU of every process once a second. At
//! the end the manifest is verified row by row.

use std::{
    collections::BTreeMap,
    fs,
    io::BufWriter,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::try_join_all;
use nix::unistd::Pid;
use packshot_benches::samples::{self, BUCKET, CATALOG_KEY};
use packshot_pipeline::model::{
    keys::Manifests,
    summary::{Latest, Status, Summary},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use super::statistics::mib;
use crate::{
    events,
    fake_services::{Counts, FakeServices},
    lambda::{Invocation, Lambda},
    outcome::Outcome,
    plot,
    process::{cpu, memory},
};

/// Rows per invocation, as docs/cost.md advises for large catalogs.
const GENERATOR_BATCH: usize = 100;
/// The defaults of template.yaml.
const GENERATOR_WINDOW: Duration = Duration::from_secs(1);
const MERGE_BATCH: usize = 1_000;
const MERGE_WINDOW: Duration = Duration::from_secs(10);

/// Flags of `bench million`.
#[derive(Debug, clap::Args)]
pub(crate) struct MillionArgs {
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Milliseconds until the images API answers.
    #[arg(long, default_value_t = 10)]
    latency_ms: u64,
    /// Processes of the generator, each with a batch of 100 rows at a time.
    #[arg(long, default_value_t = 2)]
    generators: usize,
    /// Where the functions are: the output directory of `cargo build --release`.
    #[arg(long, value_name = "DIR", default_value = "target/measured")]
    binaries: PathBuf,
    /// Where the stages and all samples are written as JSON.
    #[arg(long, value_name = "FILE", default_value = "target/million.json")]
    json: PathBuf,
    /// Where the chart of memory and CPU over time is written.
    #[arg(long, value_name = "FILE", default_value = "target/million-rows.svg")]
    plot: PathBuf,
}

/// What one function took.
#[derive(Debug, Serialize)]
struct Stage {
    name: String,
    invocations: u64,
    /// Per second in which the function worked; with several processes, per second from the first invocation to the last.
    rows_per_second: f64,
    cpu_us_per_row: f64,
    peak_mib: f64,
    /// GET and HEAD requests per row.
    reads: f64,
    /// PUT, POST and LIST requests per row.
    writes: f64,
    /// The function's own requests to SQS per row, without those of Lambda.
    queue: f64,
    /// Messages that the function gave back.
    came_back: u64,
}

/// The JSON file.
#[derive(Debug, Serialize)]
struct Million<'a> {
    rows: u64,
    /// From the event of the catalog to the manifest.
    seconds: f64,
    /// From the last result to the manifest.
    seconds_after_last_row: f64,
    stages: &'a [Stage],
    series: &'a [Series],
}

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(crate) async fn run(args: MillionArgs) -> Outcome<()> {
    let dir = tempfile::Builder::new().prefix("packshot-million-").tempdir()?;
    let latency = args.latency_ms.to_string();
    let services = FakeServices::start(dir.path(), &["--keep-messages", "--latency-ms", &latency]).await?;
    let catalog = dir.path().join("catalog.csv");
    samples::catalog(&mut BufWriter::new(fs::File::create(&catalog)?), args.rows)?;
    services.command(&format!("load?key={CATALOG_KEY}&file={}", catalog.display())).await?;
    let functions = Functions {
        services: &services,
        binaries: std::path::absolute(&args.binaries)?,
        dir: dir.path(),
        sampler: Sampler::start(),
    };
    let pid = Pid::from_raw(i32::try_from(services.process_id())?);

    let begun = Instant::now();
    let mut splitter = functions.start("splitter", "splitter").await?;
    let mut splitting = Work::default();
    splitting.add(&splitter.invoke(events::split(CATALOG_KEY)).await?);
    drop(splitter);
    eprintln!("split after {:.0} s", begun.elapsed().as_secs_f64());

    let mut pollers = Vec::new();
    for number in 1..=args.generators {
        let function = functions.start("generator", &format!("generator {number}")).await?;
        pollers.push(Poller::new(&services, "rows", GENERATOR_BATCH, GENERATOR_WINDOW, function));
    }
    let merger = functions.start("merger", "merger").await?;
    let merger = Poller::new(&services, "merge", MERGE_BATCH, MERGE_WINDOW, merger);
    let (split, generated) = (AtomicBool::new(true), AtomicBool::new(false));
    let generate = async {
        let begun = Instant::now();
        let works = try_join_all(pollers.into_iter().map(|poller| poller.work(&split))).await?;
        generated.store(true, Ordering::Relaxed);
        eprintln!("generated after another {:.0} s", begun.elapsed().as_secs_f64());
        let together = works.into_iter().fold(Work::default(), Work::and);
        Outcome::Ok((Work { busy: begun.elapsed(), ..together }, Instant::now()))
    };
    let ((generating, last_row), merging) = tokio::try_join!(generate, merger.work(&generated))?;
    let (seconds, after) = (begun.elapsed().as_secs_f64(), last_row.elapsed().as_secs_f64());
    let series = functions.sampler.stop();

    let counts = services.counts().await?;
    verify(&services, args.rows, &counts).await?;
    let stages: Vec<Stage> = [("splitter", splitting), ("generator", generating), ("merger", merging)]
        .into_iter()
        .map(|(name, work)| work.stage(name, args.rows, counts.get(name).copied().unwrap_or_default()))
        .collect();
    print!("{}", table(&stages));
    println!(
        "{} rows in {seconds:.0} s, the manifest {after:.1} s after the last row; every row completed, called for once \
         and in its place",
        args.rows
    );
    let (peak, used) = (mib(memory(pid, "VmHWM:")?), cpu(pid)?.as_secs_f64() * 1e6 / args.rows as f64);
    println!("the fake services: {peak:.0} MiB, {used:.0} us of CPU a row");
    let million = Million { rows: args.rows, seconds, seconds_after_last_row: after, stages: &stages, series: &series };
    for file in [&args.json, &args.plot] {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
    }
    fs::write(&args.json, serde_json::to_string(&million)? + "\n")?;
    Ok(fs::write(&args.plot, chart(args.rows, &series))?)
}

/// Starts functions and has them sampled.
struct Functions<'a> {
    services: &'a FakeServices,
    binaries: PathBuf,
    dir: &'a Path,
    sampler: Sampler,
}

impl Functions<'_> {
    /// The function's name is its access key, so that the fake services count its requests separately.
    async fn start(&self, name: &str, label: &str) -> Outcome<Lambda> {
        let mut environment = self.services.environment.clone();
        environment.push(("AWS_ACCESS_KEY_ID".into(), name.into()));
        let dir = self.dir.join(label);
        fs::create_dir(&dir)?;
        let function = Lambda::start(&self.binaries.join(name), &[], &environment, &dir).await?;
        self.sampler.watch(label, function.process.pid());
        Ok(function)
    }
}

/// The sum of a stage's invocations.
#[derive(Clone, Copy, Default)]
struct Work {
    invocations: u64,
    busy: Duration,
    cpu: Duration,
    peak_kib: u64,
    came_back: u64,
}

impl Work {
    fn add(&mut self, done: &Invocation) {
        self.invocations += 1;
        self.busy += done.wall;
        self.cpu += done.cpu;
        self.peak_kib = self.peak_kib.max(done.peak_kib);
    }

    fn and(self, other: Self) -> Self {
        Self {
            invocations: self.invocations + other.invocations,
            busy: self.busy + other.busy,
            cpu: self.cpu + other.cpu,
            peak_kib: self.peak_kib.max(other.peak_kib),
            came_back: self.came_back + other.came_back,
        }
    }

    fn stage(self, name: &str, rows: u64, counts: Counts) -> Stage {
        let a_row = |count: u64| count as f64 / rows as f64;
        Stage {
            name: name.into(),
            invocations: self.invocations,
            rows_per_second: rows as f64 / self.busy.as_secs_f64(),
            cpu_us_per_row: self.cpu.as_secs_f64() * 1e6 / rows as f64,
            peak_mib: mib(self.peak_kib),
            reads: a_row(counts.gets + counts.heads),
            writes: a_row(counts.puts + counts.lists + counts.multipart),
            queue: a_row(counts.queue_calls),
            came_back: self.came_back,
        }
    }
}

/// Polls a queue and invokes a function with what it finds, as Lambda does.
struct Poller<'a> {
    services: &'a FakeServices,
    queue: &'static str,
    /// A batch has at most this many messages.
    size: usize,
    /// A smaller batch is sent when its first message has waited for this long.
    window: Duration,
    function: Lambda,
}

impl<'a> Poller<'a> {
    fn new(services: &'a FakeServices, queue: &'static str, size: usize, window: Duration, function: Lambda) -> Self {
        Self { services, queue, size, window, function }
    }

    /// Works until the queue is empty and `sent_all` says that no further message will be sent.
    async fn work(mut self, sent_all: &AtomicBool) -> Outcome<Work> {
        /// Batches in a row that were given back whole; after these the measurement fails.
        const MAX_FUTILE: u32 = 10;
        let (mut work, mut back, mut futile) = (Work::default(), Vec::new(), 0);
        loop {
            let batch = self.batch(back, sent_all).await?;
            if batch.is_empty() {
                return Ok(work);
            }
            let done = self.function.invoke(events::batch(self.queue, batch.iter().cloned())).await?;
            work.add(&done);
            let sent = batch.len();
            back = came_back(batch, &done.answer)?;
            work.came_back += back.len() as u64;
            futile = if back.len() == sent { futile + 1 } else { 0 };
            if futile == MAX_FUTILE {
                let log = self.function.process.log_tail();
                return Err(format!("{} messages were given back again and again\n{log}", back.len()).into());
            }
        }
    }

    /// The next batch; messages that were given back come first. Empty when the work is done.
    async fn batch(&self, back: Vec<String>, sent_all: &AtomicBool) -> Outcome<Vec<String>> {
        let (mut batch, mut first) = (back, None);
        loop {
            // Read before the queue: if it is set, every message has been sent before the queue is read.
            let sent_all = sent_all.load(Ordering::Relaxed);
            let room = self.size - batch.len();
            let taken = self.services.command(&format!("take?queue={}&max={room}", self.queue)).await?;
            batch.extend(serde_json::from_str::<Vec<String>>(&taken)?);
            let complete = if batch.is_empty() {
                sent_all
            } else {
                batch.len() == self.size || first.get_or_insert_with(Instant::now).elapsed() >= self.window
            };
            if complete {
                return Ok(batch);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The messages of a batch that the answer names as failed.
fn came_back(batch: Vec<String>, answer: &[u8]) -> Outcome<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        batch_item_failures: Vec<Failure>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Failure {
        item_identifier: String,
    }
    let failures = serde_json::from_slice::<Answer>(answer)?.batch_item_failures;
    let named: Vec<String> = failures.into_iter().map(|failure| failure.item_identifier).collect();
    let back: Vec<String> = batch
        .into_iter()
        .enumerate()
        .filter(|(index, _)| named.contains(&events::message_id(*index)))
        .map(|(_, body)| body)
        .collect();
    // Lambda retries the whole batch if the answer names an unknown message.
    if back.len() == named.len() {
        Ok(back)
    } else {
        Err(format!("the answer names unknown messages: {named:?}").into())
    }
}

/// Fails unless the manifest has one line per row, in the order of the rows and completed, each row was called for once, and
/// no message is left in a queue.
async fn verify(services: &FakeServices, rows: u64, counts: &BTreeMap<String, Counts>) -> Outcome<()> {
    let calls: u64 = counts.values().map(|counts| counts.calls).sum();
    if calls != rows {
        return Err(format!("{calls} paid calls for {rows} rows").into());
    }
    for queue in ["rows", "retry", "merge"] {
        let left = services.command(&format!("take?queue={queue}&max=3")).await?;
        if left != "[]" {
            return Err(format!("messages are left in {queue}: {left}").into());
        }
    }
    let latest = services.object(&Manifests::of(&samples::catalog_id(), &samples::job()).latest()).await?;
    let latest: Latest = serde_json::from_str(&latest)?;
    let text = services.object(&latest.summary).await?;
    let summary: Summary = serde_json::from_str(&text)?;
    if summary.status != Status::Complete || summary.counts.completed != rows {
        return Err(format!("not complete: {text}").into());
    }
    let mut manifest = services.http.get(format!("{}/{BUCKET}/{}", services.url, latest.manifest)).send().await?;
    let (mut line, mut row) = (Vec::new(), 0);
    while let Some(chunk) = manifest.chunk().await? {
        for text in chunk.split_inclusive(|&byte| byte == b'\n') {
            line.extend_from_slice(text);
            if line.ends_with(b"\n") {
                row += 1;
                verify_line(&line, row)?;
                line.clear();
            }
        }
    }
    if row == rows && line.is_empty() { Ok(()) } else { Err(format!("{row} lines for {rows} rows").into()) }
}

fn verify_line(line: &[u8], row: u64) -> Outcome<()> {
    #[derive(Deserialize)]
    struct Line {
        row: u64,
        sku: String,
        status: String,
    }
    let found: Line = serde_json::from_slice(line)?;
    if found.row == row && found.sku == samples::sku(row) && found.status == "completed" {
        return Ok(());
    }
    Err(format!("the manifest's line {row} is not that of row {row}, completed: {}", String::from_utf8_lossy(line))
        .into())
}

/// The samples of one process.
#[derive(Debug, Clone, Serialize)]
struct Series {
    name: String,
    #[serde(skip)]
    pid: Pid,
    /// The time of the last sample, and the CPU time used until then.
    #[serde(skip)]
    last: (Instant, Duration),
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Sample {
    second: f64,
    mib: f64,
    /// Cores in use since the last sample.
    cores: f64,
}

/// Samples processes once a second until they end.
struct Sampler {
    series: Arc<Mutex<Vec<Series>>>,
    task: JoinHandle<()>,
}

impl Sampler {
    fn start() -> Self {
        let series = Arc::new(Mutex::new(Vec::new()));
        let shared = series.clone();
        let task = tokio::spawn(async move {
            let (begun, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_secs(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                shared.lock().iter_mut().for_each(|series| sample(series, begun));
            }
        });
        Self { series, task }
    }

    fn watch(&self, name: &str, pid: Pid) {
        let last = (Instant::now(), cpu(pid).unwrap_or_default());
        self.series.lock().push(Series { name: name.into(), pid, last, samples: Vec::new() });
    }

    fn stop(self) -> Vec<Series> {
        self.task.abort();
        self.series.lock().clone()
    }
}

fn sample(series: &mut Series, begun: Instant) {
    // A process that has ended has no numbers any more.
    let (Ok(kib), Ok(used)) = (memory(series.pid, "VmRSS:"), cpu(series.pid)) else { return };
    let (now, (last, used_before)) = (Instant::now(), series.last);
    series.last = (now, used);
    let cores = used.saturating_sub(used_before).as_secs_f64() / (now - last).as_secs_f64();
    series.samples.push(Sample { second: (now - begun).as_secs_f64(), mib: mib(kib), cores });
}

fn table(stages: &[Stage]) -> String {
    let mut text = String::from(
        "stage       invocations    rows/s  CPU us/row  peak MiB  S3 GET,HEAD/row  S3 PUT,LIST/row   SQS/row  came back\n",
    );
    for stage in stages {
        text.push_str(&format!(
            "{:<12}{:>11}{:>10.0}{:>12.1}{:>10.1}{:>17.3}{:>17.3}{:>10.3}{:>11}\n",
            stage.name,
            stage.invocations,
            stage.rows_per_second,
            stage.cpu_us_per_row,
            stage.peak_mib,
            stage.reads,
            stage.writes,
            stage.queue,
            stage.came_back,
        ));
    }
    text
}

fn chart(rows: u64, series: &[Series]) -> String {
    let lines = |value: fn(&Sample) -> f64| -> Vec<plot::Line> {
        series
            .iter()
            .map(|series| plot::Line {
                name: series.name.clone(),
                points: series.samples.iter().map(|sample| (sample.second, value(sample))).collect(),
            })
            .collect()
    };
    plot::svg(
        &format!("{rows} rows through splitter, generators and merger"),
        "seconds since the catalog was dropped",
        &[
            plot::Panel { title: "resident memory, MiB", lines: lines(|sample| sample.mib) },
            plot::Panel { title: "CPU, cores", lines: lines(|sample| sample.cores) },
        ],
    )
}
