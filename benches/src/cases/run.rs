//! `packshot run` against an API that takes 50 ms, and its memory.

use super::{Bench, median_of, mib};
use crate::{
    Outcome,
    process::{Process, Usage},
    report::{Case, Target},
};

const LATENCY_MS: u64 = 50;
/// Calls at once, and the share of the ideal that must be left.
const CONCURRENCY: [(u64, f64); 3] = [(6, 0.95), (64, 0.90), (256, 0.60)];
/// Microseconds of CPU per row.
const CPU_TARGET: f64 = 150.0;

pub(super) async fn measure(bench: &mut Bench) -> Outcome<()> {
    let rows = bench.size.pick(1_000, 10_000, 10_000);
    bench.stand_ins.tell(&format!("latency?ms={LATENCY_MS}")).await?;
    for (concurrency, target) in CONCURRENCY {
        let ideal = (rows * LATENCY_MS) as f64 / 1e3 / concurrency as f64;
        // Where the ideal is a minute and a half, chance is small.
        let times = if ideal > 30.0 { 1 } else { bench.size.runs() };
        let mut runs = Vec::new();
        for _ in 0..times {
            runs.push(packshot_run(bench, rows, concurrency).await?);
        }
        let wall = median_of(&runs, |run| run.wall.as_secs_f64());
        let cpu = median_of(&runs, |run| run.cpu.as_secs_f64()) * 1e6 / rows as f64;
        let case = Case {
            rows: Some(rows),
            rows_per_second: Some(rows as f64 / wall),
            cpu_us_per_row: Some(cpu),
            peak_mib: Some(median_of(&runs, |run| mib(run.peak_kib))),
            ..Case::default()
        };
        bench.report.add(Case {
            name: format!("run, {concurrency} calls at once: share of ideal"),
            floor: format!("N*L/C = {ideal:.2} s"),
            ratio: ideal / wall,
            target: Some(Target::AtLeast(target)),
            ..case.clone()
        });
        if concurrency == 64 {
            bench.report.add(Case {
                name: "run: CPU".into(),
                floor: format!("{CPU_TARGET} us/row"),
                ratio: cpu / CPU_TARGET,
                target: Some(Target::AtMost(1.0)),
                ..case
            });
        }
    }
    memory(bench).await
}

async fn memory(bench: &mut Bench) -> Outcome<()> {
    bench.stand_ins.tell("latency?ms=0").await?;
    let rows = bench.size.pick(10_000, 100_000, 1_000_000);
    let run = packshot_run(bench, rows, 64).await?;
    let allowed = 64.0 + (64 * rows) as f64 / 1_048_576.0;
    bench.report.add(Case {
        name: format!("run, {rows} rows: memory"),
        rows: Some(rows),
        rows_per_second: Some(rows as f64 / run.wall.as_secs_f64()),
        cpu_us_per_row: Some(run.cpu.as_secs_f64() * 1e6 / rows as f64),
        peak_mib: Some(mib(run.peak_kib)),
        floor: format!("64 MiB + 64 B/row = {allowed:.0}"),
        ratio: mib(run.peak_kib) / allowed,
        target: Some(Target::AtMost(1.0)),
    });
    let sizes = [bench.size.pick(100_000, 1_000_000, 1_000_000), bench.size.pick(200_000, 5_000_000, 5_000_000)];
    for rows in sizes {
        let catalog = bench.catalog(rows)?.display().to_string();
        let program = bench.binaries.join("packshot");
        let out = bench.dir().join("none").display().to_string();
        let check =
            Process::start(&program, &["check", &catalog, "--out", &out], &[], bench.dir())?.finish(&[0]).await?;
        let allowed = 64.0 + (64 * rows) as f64 / 1_048_576.0;
        bench.report.add(Case {
            name: format!("check, {rows} rows: memory"),
            rows: Some(rows),
            rows_per_second: Some(rows as f64 / check.wall.as_secs_f64()),
            cpu_us_per_row: Some(check.cpu.as_secs_f64() * 1e6 / rows as f64),
            peak_mib: Some(mib(check.peak_kib)),
            floor: format!("64 MiB + 64 B/row = {allowed:.0}"),
            ratio: mib(check.peak_kib) / allowed,
            target: Some(Target::AtMost(1.0)),
        });
    }
    Ok(())
}

async fn packshot_run(bench: &Bench, rows: u64, concurrency: u64) -> Outcome<Usage> {
    let (catalog, out) = (bench.catalog(rows)?, tempfile::tempdir_in(bench.dir())?);
    let (catalog, out) = (catalog.display().to_string(), out.path().display().to_string());
    let concurrency = concurrency.to_string();
    let arguments = ["run", &catalog, "--out", &out, "--no-archive", "--concurrency", &concurrency];
    let program = bench.binaries.join("packshot");
    Process::start(&program, &arguments, &bench.stand_ins.environment, bench.dir())?.finish(&[0]).await
}
