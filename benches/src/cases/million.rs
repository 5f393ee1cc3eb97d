//! One large catalog through all three functions, as they follow each other on AWS: what each stage takes, and its memory over time.

use std::{
    collections::BTreeMap,
    fs,
    io::BufWriter,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::try_join_all;
use nix::unistd::Pid;
use packshot_benches::samples;
use packshot_pipeline::model::{
    keys::{Catalog, Manifests},
    summary::{Latest, Status, Summary},
};
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use super::{FakeServices, mib};
use crate::{
    Outcome, events,
    fake_services::{BUCKET, Counts},
    lambda::{Invocation, Lambda},
    plot,
    process::{cpu, memory},
};

const KEY: &str = "incoming/bench.csv";
/// Rows per invocation: what docs/cost.md advises for many.
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
    /// Where the functions are, as `cargo build --release` makes them.
    #[arg(long, value_name = "DIR", default_value = "target/release")]
    binaries: PathBuf,
    /// The stages and all samples.
    #[arg(long, value_name = "FILE", default_value = "target/million.json")]
    json: PathBuf,
    /// Memory and CPU over time.
    #[arg(long, value_name = "FILE", default_value = "target/million-rows.svg")]
    plot: PathBuf,
}

/// What one function took.
#[derive(Debug, Serialize)]
struct Stage {
    name: String,
    invocations: u64,
    /// Of the time in which the function worked; of several at once, of the time from the first to the last.
    rows_per_second: f64,
    cpu_us_per_row: f64,
    peak_mib: f64,
    /// GET and HEAD, a row.
    reads: f64,
    /// PUT, POST and LIST, a row.
    writes: f64,
    /// Requests to SQS, a row; Lambda's own are not among them.
    queue: f64,
    came_back: u64,
}

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

#[expect(clippy::print_stdout, reason = "the table is what it is for")]
pub(crate) async fn run(args: MillionArgs) -> Outcome<()> {
    let dir = tempfile::Builder::new().prefix("packshot-million-").tempdir()?;
    let latency = args.latency_ms.to_string();
    let services = FakeServices::start(dir.path(), &["--keep-messages", "--latency-ms", &latency]).await?;
    let catalog = dir.path().join("catalog.csv");
    samples::catalog(&mut BufWriter::new(fs::File::create(&catalog)?), args.rows)?;
    services.tell(&format!("load?key={KEY}&file={}", catalog.display())).await?;
    let functions = Functions {
        services: &services,
        binaries: std::path::absolute(&args.binaries)?,
        dir: dir.path(),
        sampler: Sampler::start(),
    };
    let pid = Pid::from_raw(i32::try_from(services.child.id())?);

    let begun = Instant::now();
    let mut splitter = functions.start("splitter", "splitter").await?;
    let mut splitting = Work::default();
    splitting.add(&splitter.invoke(events::split(KEY)).await?);
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
    println!("the stand-ins themselves: {peak:.0} MiB, {used:.0} us of CPU a row");
    let million = Million { rows: args.rows, seconds, seconds_after_last_row: after, stages: &stages, series: &series };
    for file in [&args.json, &args.plot] {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
    }
    fs::write(&args.json, serde_json::to_string(&million)? + "\n")?;
    Ok(fs::write(&args.plot, picture(args.rows, &series))?)
}

/// Where functions come from, and who watches them.
struct Functions<'a> {
    services: &'a FakeServices,
    binaries: PathBuf,
    dir: &'a Path,
    sampler: Sampler,
}

impl Functions<'_> {
    /// Its requests are counted by the name of the function.
    async fn start(&self, name: &str, as_what: &str) -> Outcome<Lambda> {
        let mut environment = self.services.environment.clone();
        environment.push(("AWS_ACCESS_KEY_ID".into(), name.into()));
        let dir = self.dir.join(as_what);
        fs::create_dir(&dir)?;
        let function = Lambda::start(&self.binaries.join(name), &[], &environment, &dir).await?;
        self.sampler.watch(as_what, function.process.pid());
        Ok(function)
    }
}

/// The invocations of a stage, together.
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

/// Brings the messages of a queue to a function, as Lambda does.
struct Poller<'a> {
    services: &'a FakeServices,
    queue: &'static str,
    /// At most so many at a time,
    size: usize,
    /// and fewer once the first has waited for so long.
    window: Duration,
    function: Lambda,
}

impl<'a> Poller<'a> {
    fn new(services: &'a FakeServices, queue: &'static str, size: usize, window: Duration, function: Lambda) -> Self {
        Self { services, queue, size, window, function }
    }

    /// Until the queue is empty and nothing can come any more.
    async fn work(mut self, no_more: &AtomicBool) -> Outcome<Work> {
        const IN_VAIN: u32 = 10;
        let (mut work, mut back, mut in_vain) = (Work::default(), Vec::new(), 0);
        loop {
            let batch = self.batch(back, no_more).await?;
            if batch.is_empty() {
                return Ok(work);
            }
            let done = self.function.invoke(events::batch(self.queue, batch.iter().cloned())).await?;
            work.add(&done);
            let sent = batch.len();
            back = came_back(batch, &done.answer)?;
            work.came_back += back.len() as u64;
            in_vain = if back.len() == sent { in_vain + 1 } else { 0 };
            if in_vain == IN_VAIN {
                let log = self.function.process.log_tail();
                return Err(format!("{} messages come back and back\n{log}", back.len()).into());
            }
        }
    }

    async fn batch(&self, back: Vec<String>, no_more: &AtomicBool) -> Outcome<Vec<String>> {
        let (mut batch, mut first) = (back, None);
        loop {
            // Asked before the queue is: what was sent until then is in it.
            let no_more = no_more.load(Ordering::Relaxed);
            let room = self.size - batch.len();
            let taken = self.services.tell(&format!("take?queue={}&max={room}", self.queue)).await?;
            batch.extend(serde_json::from_str::<Vec<String>>(&taken)?);
            let waited = if batch.is_empty() {
                no_more
            } else {
                batch.len() == self.size || first.get_or_insert_with(Instant::now).elapsed() >= self.window
            };
            if waited {
                return Ok(batch);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The messages of a batch that the answer names.
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
    // To Lambda an unknown name means that the whole batch has failed.
    if back.len() == named.len() { Ok(back) } else { Err(format!("unknown messages come back: {named:?}").into()) }
}

/// One line per row, in the order of the rows, each completed and called for once; nothing is left in a queue.
async fn verify(services: &FakeServices, rows: u64, counts: &BTreeMap<String, Counts>) -> Outcome<()> {
    let calls: u64 = counts.values().map(|counts| counts.calls).sum();
    if calls != rows {
        return Err(format!("{calls} paid calls for {rows} rows").into());
    }
    for queue in ["rows", "retry", "merge"] {
        let left = services.tell(&format!("take?queue={queue}&max=3")).await?;
        if left != "[]" {
            return Err(format!("messages are left in {queue}: {left}").into());
        }
    }
    let catalog = Catalog::of(KEY).ok_or("no catalog")?;
    let latest = services.object(&Manifests::of(&catalog, &samples::job()).latest()).await?;
    let latest: Latest = serde_json::from_str(&latest)?;
    let text = services.object(&latest.summary).await?;
    let summary: Summary = serde_json::from_str(&text)?;
    if summary.status != Status::Complete || summary.counts.completed != rows {
        return Err(format!("not complete: {text}").into());
    }
    let mut manifest = services.http.get(format!("{}/{BUCKET}/{}", services.url, latest.manifest)).send().await?;
    let (mut line, mut row) = (Vec::new(), 0);
    while let Some(chunk) = manifest.chunk().await? {
        for piece in chunk.split_inclusive(|&byte| byte == b'\n') {
            line.extend_from_slice(piece);
            if line.ends_with(b"\n") {
                row += 1;
                in_place(&line, row)?;
                line.clear();
            }
        }
    }
    if row == rows && line.is_empty() { Ok(()) } else { Err(format!("{row} lines for {rows} rows").into()) }
}

fn in_place(line: &[u8], row: u64) -> Outcome<()> {
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
    Err(format!("in the place of row {row}: {}", String::from_utf8_lossy(line)).into())
}

/// A process over time.
#[derive(Debug, Clone, Serialize)]
struct Series {
    name: String,
    #[serde(skip)]
    pid: Pid,
    /// When it was last looked at, and its CPU time then.
    #[serde(skip)]
    before: (Instant, Duration),
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Sample {
    second: f64,
    mib: f64,
    /// Cores in use since the sample before.
    cores: f64,
}

/// Looks at processes once a second, until they end.
struct Sampler {
    series: Arc<Mutex<Vec<Series>>>,
    task: JoinHandle<()>,
}

impl Sampler {
    fn start() -> Self {
        let series = Arc::new(Mutex::new(Vec::new()));
        let seen = series.clone();
        let task = tokio::spawn(async move {
            let (begun, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_secs(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                lock(&seen).iter_mut().for_each(|series| look(series, begun));
            }
        });
        Self { series, task }
    }

    fn watch(&self, name: &str, pid: Pid) {
        let before = (Instant::now(), cpu(pid).unwrap_or_default());
        lock(&self.series).push(Series { name: name.into(), pid, before, samples: Vec::new() });
    }

    fn stop(self) -> Vec<Series> {
        self.task.abort();
        lock(&self.series).clone()
    }
}

fn lock(series: &Mutex<Vec<Series>>) -> std::sync::MutexGuard<'_, Vec<Series>> {
    series.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(series: &mut Series, begun: Instant) {
    // One that has ended cannot be looked at.
    let (Ok(kib), Ok(used)) = (memory(series.pid, "VmRSS:"), cpu(series.pid)) else { return };
    let (now, (before, used_before)) = (Instant::now(), series.before);
    series.before = (now, used);
    let cores = used.saturating_sub(used_before).as_secs_f64() / (now - before).as_secs_f64();
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

fn picture(rows: u64, series: &[Series]) -> String {
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
