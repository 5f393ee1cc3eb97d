//! The cases, one file per group. In each case the product and its baseline take turns, so that a change of the machine's
//! load affects both; the medians of both are compared.
//!
//! The groups know [`context`] and [`statistics`], and not each other. This module runs them.

mod cold_start;
mod context;
mod generator;
mod merger;
pub(crate) mod million;
mod run;
mod splitter;
mod statistics;

use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use tokio::time::Instant;

use self::context::{Bench, Size};
use crate::{fake_services::FakeServices, outcome::Outcome, report::Report};

/// Flags of `bench run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Measure only these groups.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// How many rows.
    #[arg(long, value_enum, default_value_t = Size::Full)]
    size: Size,
    /// Where `packshot` and the functions are: the output directory of `cargo build --release`.
    #[arg(long, value_name = "DIR", default_value = "target/measured")]
    binaries: PathBuf,
    /// Where the deployable functions and `minimal-lambda` are (profile `lambda`); without it no cold starts are measured.
    #[arg(long, value_name = "DIR")]
    bootstraps: Option<PathBuf>,
    /// Where the results are written as JSON.
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

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(crate) async fn run(args: RunArgs) -> Outcome<()> {
    let dir = tempfile::Builder::new().prefix("packshot-bench-").tempdir()?;
    let services = FakeServices::start(dir.path(), &[]).await?;
    let binaries = std::path::absolute(&args.binaries)?;
    let bootstraps = args.bootstraps.map(std::path::absolute).transpose()?;
    let disk = std::path::absolute(args.json.parent().unwrap_or(Path::new(".")))?;
    std::fs::create_dir_all(&disk)?;
    // Read before the measurement, so that a missing file fails at once and not after a quarter of an hour.
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
        println!("{case}: new; the earlier run has nothing to compare it with");
    }
    for case in &compared.missing {
        println!("{case}: not measured in this run, but in the earlier one");
    }
    for case in &compared.worse {
        println!("{case}");
    }
    // With `--only` most cases are missing on purpose.
    if !compared.worse.is_empty() || (args.only.is_empty() && !compared.missing.is_empty()) {
        return Err("worse than before".into());
    }
    println!("nothing is worse than before");
    Ok(())
}
