//! Runs the three use cases in one simulated process, with faults drawn from a seed, and checks every promise.
//!
//! A run uses one thread, Tokio's clock is paused, and every chance comes from the seed: the same seed is the same run to the
//! last port call. README.md states what this rests on.

mod call;
mod clock;
mod fault;
mod faulty_ports;
mod faulty_queue;
mod images_api;
mod mutation;
mod oracle;
mod plan;
mod processes;
mod random;
mod run;
mod state;
mod stats;
mod trace;
mod uploads;

use std::{
    cell::Cell,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use parking_lot::Mutex;

pub use self::{fault::CrashPoint, mutation::Mutation, plan::Plan, run::Outcome, stats::Stats};

/// A seed that broke a promise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The first broken promise.
    pub broken: String,
}

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Findings {
    /// The numbers of all runs, in sum.
    pub stats: Stats,
    /// The number of runs.
    pub runs: u64,
    /// In the order of the seeds.
    pub failures: Vec<Failure>,
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Counts panics. The product catches the panic of a message and the runtime that of a task; here each is a broken promise.
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

/// Runs one plan on a thread of its own, because the caller's thread may belong to a runtime.
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
            runtime.block_on(run::run(plan, keep_trace))
        })
    }));
    let mut outcome = ran.unwrap_or_else(|_| could_not_run("the simulation panicked".into()));
    if PANICS.get() != before {
        outcome.broken.get_or_insert_with(|| "something panicked".into());
    }
    outcome
}

/// Runs the plans of many seeds on all cores, each run on one thread. Stops early once `enough` failures are found.
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
                    let found = findings.lock().failures.len();
                    if seed >= seeds.end || found >= enough {
                        break;
                    }
                    let outcome = run_here(plan(seed), false);
                    own.runs += 1;
                    own.stats.add(&outcome.stats);
                    if let Some(broken) = outcome.broken {
                        let mut all = findings.lock();
                        all.failures.push(Failure { seed, broken });
                    }
                }
                let mut all = findings.lock();
                all.runs += own.runs;
                all.stats.add(&own.stats);
            });
        }
    });
    let mut findings = findings.into_inner();
    findings.failures.sort();
    findings
}
