//! Runs the simulation: seeds, the trace of one, or one calm catalog.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser;
use packshot_simulation::{Failure, Findings, Outcome, Plan, run_many, run_plan};
use tokio::time::Instant;

/// Try to break the product's promises in a simulated world, by the seed.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Print every port call.
    #[arg(long, conflicts_with = "runs")]
    trace: bool,
    /// Instead of seeds: one catalog of so many rows, without any trouble, and the port calls that a row takes.
    #[arg(long, value_name = "ROWS", conflicts_with_all = ["seed", "runs", "trace"], value_parser = clap::value_parser!(u64).range(1..))]
    rows: Option<u64>,
    /// With --rows: the pictures are not kept, which halves the memory (about 26 kB a row with them).
    #[arg(long, requires = "rows")]
    no_archive: bool,
}

/// Prints what a row takes when nothing goes wrong: the same at every number of rows, or something is not linear.
fn run_calm(rows: u64, archive: bool, out: &mut impl io::Write) -> io::Result<bool> {
    let began = Instant::now();
    let Outcome { broken, stats, .. } = run_plan(Plan::calm(rows, archive), false);
    let seconds = began.elapsed().as_secs_f64();
    writeln!(
        out,
        "{rows} rows in {seconds:.1} s ({:.0} a second), {:.1} simulated hours, {} port calls; of these for each row",
        rows as f64 / seconds,
        stats.virtual_time.as_secs_f64() / 3600.0,
        stats.port_calls
    )?;
    for ((who, what, about), count) in &stats.calls {
        writeln!(out, "{:>12.5} {who:<10} {what} {about}", *count as f64 / rows as f64)?;
    }
    if let Some(broken) = &broken {
        writeln!(out, "{broken}")?;
    }
    Ok(broken.is_none())
}

/// Failures after which looking for more is a waste of time.
const ENOUGH: usize = 20;

/// Runs the seeds, prints what happened, and says whether every promise was kept.
fn run(args: &Args) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    if let Some(rows) = args.rows {
        return run_calm(rows, !args.no_archive, &mut out);
    }
    if args.trace {
        let outcome = run_plan(Plan::of(args.seed), true);
        for line in &outcome.trace {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "trace hash {:016x}", outcome.hash)?;
        if let Some(broken) = &outcome.broken {
            writeln!(out, "seed {}: {broken}", args.seed)?;
        }
        return Ok(outcome.broken.is_none());
    }
    let began = Instant::now();
    let findings = run_many(args.seed..args.seed.saturating_add(args.runs), ENOUGH, Plan::of);
    let seconds = began.elapsed().as_secs_f64();
    let Findings { stats, runs, failures } = &findings;
    writeln!(
        out,
        "{runs} runs in {seconds:.1} s ({:.0} a second): {} files with {} rows, {} port calls, {} API calls, {} billed, {} unknown outcomes \
         counted, {} messages redriven, {:.0} simulated hours",
        *runs as f64 / seconds,
        stats.files,
        stats.rows,
        stats.port_calls,
        stats.api_calls,
        stats.billed,
        stats.unknown,
        stats.redriven,
        stats.virtual_time.as_secs_f64() / 3600.0
    )?;
    for (kind, count) in &stats.faults {
        writeln!(out, "{count:>12} {kind}")?;
    }
    for Failure { seed, broken } in failures {
        writeln!(
            out,
            "seed {seed}: {broken}\n    replay: cargo run --release -p packshot-simulation -- --seed {seed} --trace"
        )?;
    }
    if failures.is_empty() {
        writeln!(out, "every promise was kept")?;
    }
    Ok(failures.is_empty())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // There is no one to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
