//! Runs the simulation: many seeds, the trace of one seed, or one catalog without faults.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser;
use packshot_simulation::{Failure, Findings, Mutation, Outcome, Plan, run_many, run_plan};
use tokio::time::Instant;

/// Try to break the product's promises with faults that a seed decides.
///
/// The exit status is 0 if every promise was kept, and 1 otherwise.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of seeds.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Print every port call of the first seed.
    #[arg(long, conflicts_with = "runs")]
    trace: bool,
    /// Plant this mistake, which the oracle must notice.
    #[arg(long, value_enum)]
    mutation: Option<Mutation>,
    /// Instead of seeds, run one catalog of this many rows without faults, and print the port calls that a row takes.
    #[arg(long, value_name = "ROWS", conflicts_with_all = ["seed", "runs", "trace", "mutation"], value_parser = clap::value_parser!(u64).range(1..))]
    rows: Option<u64>,
    /// With --rows, do not keep the images. This halves the memory, which is about 26 kB a row with them.
    #[arg(long, requires = "rows")]
    no_archive: bool,
}

/// Prints the port calls that a row takes without faults. They depend on the number of rows only if something is not linear.
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
    for ((role, call, prefix), count) in &stats.calls {
        writeln!(out, "{:>12.5} {role:<10} {call} {prefix}", *count as f64 / rows as f64)?;
    }
    if let Some(broken) = &broken {
        writeln!(out, "{broken}")?;
    }
    Ok(broken.is_none())
}

/// After this many failures the search ends.
const ENOUGH: usize = 20;

/// Runs what the arguments ask for, prints what happened, and returns whether every promise was kept.
fn run(args: &Args) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    if let Some(rows) = args.rows {
        return run_calm(rows, !args.no_archive, &mut out);
    }
    let plan = |seed| args.mutation.map_or_else(|| Plan::of(seed), |mutation| Plan::with_mutation(seed, mutation));
    if args.trace {
        let outcome = run_plan(plan(args.seed), true);
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
    let findings = run_many(args.seed..args.seed.saturating_add(args.runs), ENOUGH, plan);
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
    let planted = args.mutation.map(|mutation| format!(" --mutation {}", mutation.name())).unwrap_or_default();
    for Failure { seed, broken } in failures {
        writeln!(
            out,
            "seed {seed}: {broken}\n    replay: cargo run --release -p packshot-simulation -- --seed {seed}{planted} --trace"
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
            // If standard error is closed, the exit status alone reports the failure.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
