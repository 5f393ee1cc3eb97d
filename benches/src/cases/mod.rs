//! What is measured. Ours and its floor take turns in one run, and the median of each counts.

mod cold_start;
mod generator;
mod merger;
pub(crate) mod million;
mod run;
mod splitter;

use std::{
    collections::BTreeMap,
    io::BufRead as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use clap::ValueEnum as _;
use packshot_benches::samples;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    Outcome, events,
    fake_services::Counts,
    lambda::Lambda,
    process::{Process, Usage},
    report::Report,
};

/// Flags of `bench run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Only these groups.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// How much of everything.
    #[arg(long, value_enum, default_value_t = Size::Full)]
    size: Size,
    /// Where `packshot` and the functions are, as `cargo build --release` makes them.
    #[arg(long, value_name = "DIR", default_value = "target/release")]
    binaries: PathBuf,
    /// Where the functions and `minimal-lambda` are as they are deployed (profile `lambda`); without it no cold starts.
    #[arg(long, value_name = "DIR")]
    bootstraps: Option<PathBuf>,
    /// The results as JSON.
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
    /// Fail where a ratio is 20 % worse than in this file.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Group {
    ColdStart,
    Run,
    Generator,
    Splitter,
    Merger,
}

/// The numbers of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Size {
    /// Seconds, to try something.
    Quick,
    /// What `make bench` takes.
    Full,
    /// Everything at the sizes of the targets; an hour and some disk.
    Heavy,
}

impl Size {
    fn pick(self, quick: u64, full: u64, heavy: u64) -> u64 {
        match self {
            Self::Quick => quick,
            Self::Full => full,
            Self::Heavy => heavy,
        }
    }

    fn runs(self) -> usize {
        if self == Self::Quick { 1 } else { 3 }
    }
}

/// What the cases share.
struct Bench {
    size: Size,
    binaries: PathBuf,
    bootstraps: Option<PathBuf>,
    dir: TempDir,
    /// Beside the results, because the directory for temporary files is in memory on many machines.
    disk: PathBuf,
    services: FakeServices,
    report: Report,
}

#[expect(clippy::print_stdout, reason = "the table is what it is for")]
pub(crate) async fn run(args: RunArgs) -> Outcome<()> {
    let dir = tempfile::Builder::new().prefix("packshot-bench-").tempdir()?;
    let services = FakeServices::start(dir.path(), &[]).await?;
    let binaries = std::path::absolute(&args.binaries)?;
    let bootstraps = args.bootstraps.map(std::path::absolute).transpose()?;
    let disk = std::path::absolute(args.json.parent().unwrap_or(Path::new(".")))?;
    std::fs::create_dir_all(&disk)?;
    // A file that is not there is said now, not in a quarter of an hour.
    let before = args.compare.as_deref().map(Report::read).transpose()?;
    let mut bench = Bench { size: args.size, binaries, bootstraps, dir, disk, services, report: Report::default() };
    let all = Instant::now();
    for &group in Group::value_variants() {
        if !args.only.is_empty() && !args.only.contains(&group) {
            continue;
        }
        let begun = Instant::now();
        match group {
            Group::ColdStart => cold_start::measure(&mut bench).await?,
            Group::Run => run::measure(&mut bench).await?,
            Group::Generator => generator::measure(&mut bench).await?,
            Group::Splitter => splitter::measure(&mut bench).await?,
            Group::Merger => merger::measure(&mut bench).await?,
        }
        eprintln!("{group:?} took {:.0} s", begun.elapsed().as_secs_f64());
    }
    print!("{}", bench.report.table());
    println!("measured in {:.1} minutes", all.elapsed().as_secs_f64() / 60.0);
    bench.report.write(&args.json)?;
    let Some(before) = before else { return Ok(()) };
    let compared = bench.report.compare(&before);
    for case in &compared.new {
        println!("{case}: compared with nothing, it is not among the numbers of before");
    }
    for case in &compared.missing {
        println!("{case}: not measured, and it was before");
    }
    for case in &compared.worse {
        println!("{case}");
    }
    // With `--only` most are missing, and whoever says so knows.
    if !compared.worse.is_empty() || (args.only.is_empty() && !compared.missing.is_empty()) {
        return Err("worse than before".into());
    }
    println!("nothing is worse than before");
    Ok(())
}

impl Bench {
    fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A catalog of so many rows, written once.
    fn catalog(&self, rows: u64) -> Outcome<PathBuf> {
        let path = self.dir().join(format!("catalog-{rows}.csv"));
        if !path.exists() {
            samples::catalog(&mut std::io::BufWriter::new(std::fs::File::create(&path)?), rows)?;
        }
        Ok(path)
    }

    /// Runs one of [`crate::baselines`] to its end. CPU and time are of the piece itself, without the start of its process.
    async fn baseline(&self, arguments: &[&str]) -> Outcome<Usage> {
        let arguments = [&["baseline"], arguments].concat();
        let process = Process::start(&std::env::current_exe()?, &arguments, &self.services.environment, self.dir())?;
        let log = process.log();
        let whole = process.finish(&[0]).await?;
        let text = std::fs::read_to_string(log)?;
        let (cpu, wall) = text.trim().split_once(' ').ok_or("a piece that does not say what it took")?;
        let micros = |text: &str| text.parse().map(Duration::from_micros);
        Ok(Usage { cpu: micros(cpu)?, wall: micros(wall)?, ..whole })
    }

    /// Starts a function as `cargo build --release` made it, with further variables.
    async fn function(&self, name: &str, variables: &[(&str, &str)]) -> Outcome<Lambda> {
        let mut environment = self.services.environment.clone();
        environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Lambda::start(&self.binaries.join(name), &[], &environment, self.dir()).await
    }

    /// Drops a catalog and lets the splitter send it. The bucket holds nothing else afterwards, and its job.
    async fn split(&self, rows: u64, variables: &[(&str, &str)]) -> Outcome<crate::lambda::Invocation> {
        let key = "incoming/bench.csv";
        self.services.tell("reset").await?;
        self.services.tell(&format!("load?key={key}&file={}", self.catalog(rows)?.display())).await?;
        let mut splitter = self.function("splitter", variables).await?;
        let split = splitter.invoke(events::split(key)).await?;
        let sent = self.services.counted(|counts| counts.messages).await?;
        if sent != rows {
            return Err(format!("the splitter sent {sent} messages of {rows} rows").into());
        }
        Ok(split)
    }
}

/// The stand-ins, in a process of their own, so that their work is not counted as ours.
struct FakeServices {
    child: Child,
    url: String,
    environment: Vec<(String, String)>,
    http: reqwest::Client,
}

impl FakeServices {
    async fn start(dir: &Path, arguments: &[&str]) -> Outcome<Self> {
        let dir = dir.display().to_string();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["fake-services", "--dir", &dir]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let mut environment = Vec::new();
        for line in std::io::BufReader::new(output).lines() {
            match line?.split_once('=') {
                Some((name, value)) => environment.push((name.to_owned(), value.to_owned())),
                None => break,
            }
        }
        let url = environment.iter().find(|(name, _)| name == "STAND_INS_URL").map(|(_, url)| url.clone());
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { url: url.ok_or("the stand-ins did not start")?, child, environment, http })
    }

    /// The variable that leads to one of them.
    fn variable(&self, name: &str) -> &str {
        self.environment.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// See the stand-ins' `control`.
    async fn tell(&self, what: &str) -> Outcome<String> {
        let answer = self.http.get(format!("{}/_bench/{what}", self.url)).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if status.is_success() { Ok(text) } else { Err(text.into()) }
    }

    /// What was asked for since the last time, by access key.
    async fn counts(&self) -> Outcome<BTreeMap<String, Counts>> {
        Ok(serde_json::from_str(&self.tell("counts").await?)?)
    }

    /// One of these numbers, whoever asked.
    async fn counted(&self, what: impl Fn(&Counts) -> u64) -> Outcome<u64> {
        Ok(self.counts().await?.values().map(what).sum())
    }

    async fn object(&self, key: &str) -> Outcome<String> {
        let answer = self.http.get(format!("{}/{}/{key}", self.url, crate::fake_services::BUCKET)).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }
}

impl Drop for FakeServices {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of something that was measured several times.
fn median_of<T>(runs: &[T], value: impl Fn(&T) -> f64) -> f64 {
    median(runs.iter().map(value).collect())
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
