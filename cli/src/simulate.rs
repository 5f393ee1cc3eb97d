//! `packshot simulate`: the three use cases over a world that does what worlds do, by the seed.
//!
//! Everything runs on one thread with Tokio's clock paused, and every chance comes from the seed, so that the same seed is the
//! same run to the last port call.

use std::{
    cell::Cell,
    io::Write as _,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use clap::Args;
use tokio::time::Instant;

mod api;
mod bug;
mod oracle;
mod plan;
mod trace;
mod wire;
mod world;

pub use self::{
    bug::Bug,
    plan::{Moment, Plan},
    world::{Outcome, Stats},
};

/// Arguments of `packshot simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    pub runs: u64,
    /// Print every port call.
    #[arg(long, conflicts_with = "runs")]
    pub trace: bool,
    /// Instead of seeds: one catalog of so many rows, without any trouble, and the port calls that a row takes.
    #[arg(long, value_name = "ROWS", conflicts_with_all = ["seed", "runs", "trace"], value_parser = clap::value_parser!(u64).range(1..))]
    pub rows: Option<u64>,
    /// With --rows: the pictures are not kept, which halves the memory (about 26 kB a row with them).
    #[arg(long, requires = "rows")]
    pub no_archive: bool,
}

/// A seed that broke a promise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What broke.
    pub broken: String,
}

/// What many runs found.
#[derive(Debug, Default)]
pub struct Findings {
    /// In sum.
    pub stats: Stats,
    /// Runs made.
    pub runs: u64,
    /// In the order of the seeds.
    pub failures: Vec<Failure>,
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// The product catches the panic of one message and the runtime that of one task; here each of them is a broken promise.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

/// Runs one plan, on a thread of its own, because the caller's may belong to a runtime.
pub fn run_plan(plan: Plan, keep_trace: bool) -> Outcome {
    let ran = thread::scope(|scope| scope.spawn(|| run_here(plan, keep_trace)).join());
    ran.unwrap_or_else(|_| could_not_run("the simulation panicked".into()))
}

fn could_not_run(why: String) -> Outcome {
    Outcome { broken: Some(why), hash: 0, trace: Vec::new(), stats: Stats::default() }
}

fn run_here(plan: Plan, keep_trace: bool) -> Outcome {
    watch_panics();
    let before = PANICS.get();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build() {
        Ok(runtime) => runtime,
        Err(error) => return could_not_run(format!("no runtime: {error}")),
    };
    let ran = panic::catch_unwind(AssertUnwindSafe(|| {
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
            runtime.block_on(world::run(plan, keep_trace))
        })
    }));
    let mut outcome = ran.unwrap_or_else(|_| could_not_run("the simulation panicked".into()));
    if PANICS.get() != before {
        outcome.broken.get_or_insert_with(|| "something panicked".into());
    }
    outcome
}

/// Runs the plans of many seeds on all cores; stops early when `enough` failures are found.
pub fn run_many(seeds: Range<u64>, enough: usize, plan: impl Fn(u64) -> Plan + Sync) -> Findings {
    let next = AtomicU64::new(seeds.start);
    let findings = Mutex::new(Findings::default());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut own = Findings::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let found = findings.lock().unwrap_or_else(PoisonError::into_inner).failures.len();
                    if seed >= seeds.end || found >= enough {
                        break;
                    }
                    let outcome = run_here(plan(seed), false);
                    own.runs += 1;
                    own.stats.add(&outcome.stats);
                    if let Some(broken) = outcome.broken {
                        let mut all = findings.lock().unwrap_or_else(PoisonError::into_inner);
                        all.failures.push(Failure { seed, broken });
                    }
                }
                let mut all = findings.lock().unwrap_or_else(PoisonError::into_inner);
                all.runs += own.runs;
                all.stats.add(&own.stats);
            });
        }
    });
    let mut findings = findings.into_inner().unwrap_or_else(PoisonError::into_inner);
    findings.failures.sort();
    findings
}

/// Prints what a row takes when nothing goes wrong: the same at every number of rows, or something is not linear.
fn run_calm(rows: u64, archive: bool, out: &mut impl std::io::Write) -> std::io::Result<bool> {
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
pub fn run(args: &SimulateArgs) -> std::io::Result<bool> {
    let mut out = std::io::stdout().lock();
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
        writeln!(out, "seed {seed}: {broken}\n    replay: packshot simulate --seed {seed} --trace")?;
    }
    if failures.is_empty() {
        writeln!(out, "every promise was kept")?;
    }
    Ok(failures.is_empty())
}
