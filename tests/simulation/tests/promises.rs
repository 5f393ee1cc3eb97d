//! The promises hold for thousands of seeds and at every point where a worker can die, and the oracle notices every planted
//! mistake.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

use std::collections::{BTreeMap, BTreeSet};

use packshot_simulation::{CrashPoint, Findings, Mutation, Plan, run_many, run_plan};

const SEEDS: u64 = 2_000;
/// Every planted mistake must be found within this many seeds.
const FOUND_WITHIN: u64 = 10_000;

fn assert_kept(findings: &Findings) {
    let failures: Vec<_> = findings
        .failures
        .iter()
        .map(|failure| {
            format!(
                "seed {0}: {1}\n    replay: cargo run --release -p packshot-simulation -- --seed {0} --trace",
                failure.seed, failure.broken
            )
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_seed_keeps_every_promise() {
    let findings = run_many(0..SEEDS, 5, Plan::of);
    println!("{} runs: {:#?}", findings.runs, findings.stats);
    assert_kept(&findings);
    assert_eq!(findings.runs, SEEDS);
    let kinds = [
        "deletion lost",
        "died after",
        "died before",
        "effect came late",
        "event late",
        "event lost once",
        "event repeated",
        "failed after",
        "failed before",
        "met its own success",
        "stalled",
        "stream broke off",
    ];
    for kind in kinds {
        assert!(
            findings.stats.faults.get(kind).is_some_and(|&count| count > 100),
            "{kind}: {:?}",
            findings.stats.faults
        );
    }
    assert!(findings.stats.unknown > 1_000 && findings.stats.redriven > 1_000, "{:?}", findings.stats);
}

/// Seeds that once broke a promise and are outside the range of the other tests.
#[test]
fn seeds_that_once_broke_a_promise_keep_it() {
    for seed in
        [301_068_517, 511_779_189, 778_461_044, 150_659_899_927, 389_869_407_113, 673_744_297_475, 857_140_449_242]
    {
        assert_eq!(run_plan(Plan::of(seed), false).broken, None, "seed {seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let mut different = 0;
    for seed in 0..100 {
        let (one, other) = (run_plan(Plan::of(seed), true), run_plan(Plan::of(seed), false));
        assert_eq!(one.hash, other.hash, "seed {seed}");
        assert_eq!(one.stats.port_calls, other.stats.port_calls, "seed {seed}");
        assert!(!one.trace.is_empty() && other.trace.is_empty());
        different += u32::from(one.hash != run_plan(Plan::of(seed + 1), false).hash);
    }
    assert_eq!(different, 100);
}

fn crashes(crashes: &[(u64, CrashPoint)]) -> Plan {
    Plan::crashing(crashes.to_vec())
}

/// The number of port calls of a run, and so of the points to crash at.
fn port_calls(plan: Plan) -> u64 {
    let outcome = run_plan(plan, false);
    assert_eq!(outcome.broken, None);
    outcome.stats.port_calls
}

#[test]
fn a_worker_may_die_at_every_port_call() {
    let calls = port_calls(crashes(&[]));
    println!("{calls} port calls without a crash");
    assert!(calls > 40, "{calls}");
    for point in [CrashPoint::Before, CrashPoint::After] {
        for at in 1..=calls {
            let outcome = run_plan(crashes(&[(at, point)]), false);
            assert_eq!(outcome.broken, None, "died {point:?} port call {at}");
            assert_eq!(outcome.stats.faults.values().sum::<u64>(), 1, "no crash at port call {at}");
        }
    }
}

#[test]
fn workers_may_die_at_every_two_port_calls() {
    let points = [CrashPoint::Before, CrashPoint::After];
    let mut runs = 0;
    for first in 1..=port_calls(crashes(&[])) {
        for point in points {
            // The first death makes the run longer; the second may come at any call of the longer one.
            let calls = port_calls(crashes(&[(first, point)]));
            let pairs = (calls - first) * 2;
            runs += pairs;
            let findings = run_many(0..pairs, 1, |number| {
                let second = (first + 1 + number / 2, points[usize::try_from(number % 2).unwrap()]);
                crashes(&[(first, point), second])
            });
            let broken = findings
                .failures
                .first()
                .map(|failure| (failure.seed / 2 + first + 1, failure.seed % 2, &failure.broken));
            assert_eq!(broken, None, "after a death {point:?} port call {first}");
        }
    }
    println!("{runs} pairs");
}

/// Port calls per row, by role; reads of results apart.
fn calls_per_row(rows: u64) -> BTreeMap<&'static str, f64> {
    let outcome = run_plan(Plan::calm(rows, true), false);
    assert_eq!(outcome.broken, None);
    let mut calls = BTreeMap::new();
    for ((role, call, prefix), count) in outcome.stats.calls {
        let kind = if (call, prefix) == ("open", "results/") { "results read" } else { role };
        *calls.entry(kind).or_default() += count as f64 / rows as f64;
    }
    calls
}

#[test]
fn ten_times_the_rows_take_ten_times_the_port_calls() {
    let (few, many) = (calls_per_row(2_000), calls_per_row(20_000));
    println!("{few:?}\n{many:?}");
    let ratio = |role: &str| many[role] / few[role];
    assert_eq!(ratio("generator"), 1.0, "no row of a large job takes more than one of a small job");
    // The sweep and the announcement are calls of the job, not of its rows.
    assert!(ratio("merger") <= 1.05, "{}", ratio("merger"));
    // Once by the generator, once by the merger. By chance two mergers find the same part complete and both read it.
    assert!(many["results read"] < 2.25, "{}", many["results read"]);
    assert!(ratio("splitter") <= 1.0, "{}", ratio("splitter"));
}

#[test]
fn planted_mistakes_are_found() {
    let mut missed = Vec::new();
    for &mutation in Mutation::all() {
        let findings = run_many(0..FOUND_WITHIN, 1, |seed| Plan::with_mutation(seed, mutation));
        match findings.failures.first() {
            Some(failure) => println!("{mutation:?} found at seed {}: {}", failure.seed, failure.broken),
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "not found within {FOUND_WITHIN} seeds: {missed:?}");
}

#[test]
fn the_readme_explains_every_mutation() {
    let readme = include_str!("../README.md");
    let section = readme.split_once("## Planted mutations").unwrap().1.split_once("To plant another one").unwrap().0;
    let explained: BTreeSet<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let names: Vec<String> = Mutation::all().iter().map(|mutation| mutation.name()).collect();
    assert_eq!(explained, names.iter().map(String::as_str).collect());
}
