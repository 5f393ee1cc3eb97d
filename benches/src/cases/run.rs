//! `packshot run`: its time against an API that takes 50 ms, as a share of the ideal in which nothing but the API takes time,
//! and its memory. Also the memory of `packshot check`.

use std::{
    fmt::{self, Display, Formatter},
    path::Path,
};

use nix::sys::statvfs::statvfs;

use super::{
    context::Bench,
    statistics::{median_of, mib},
};
use crate::{
    outcome::Outcome,
    process::{Process, Usage},
    report::{Case, Target},
};

const LATENCY_MS: u64 = 50;
/// Calls in flight, and the target for the share of the ideal.
const CONCURRENCY: [(u64, f64); 3] = [(6, 0.95), (64, 0.90), (256, 0.60)];
/// Microseconds of CPU per row.
const CPU_TARGET: f64 = 150.0;

/// A directory whose files are in memory, on every Linux.
const IN_MEMORY: &str = "/dev/shm";
/// What the files of a row take in it.
const BYTES_PER_ROW: u64 = 20_000;

pub(super) async fn measure(bench: &mut Bench) -> Outcome<()> {
    let rows = bench.size.pick(1_000, 10_000, 10_000);
    let storage = Storage::with_room_for(rows);
    bench.services.command(&format!("latency?ms={LATENCY_MS}")).await?;
    for (concurrency, target) in CONCURRENCY {
        let ideal = ideal(rows, concurrency);
        // A run of a minute and a half varies little, so one is enough.
        let times = if ideal > 30.0 { 1 } else { bench.size.runs() };
        let case = at_once(bench, storage, rows, concurrency, times).await?;
        let cpu = case.cpu_us_per_row.unwrap_or(f64::NAN);
        bench.report.add(Case { target: Some(Target::AtLeast(target)), ..case.clone() });
        if concurrency == 64 {
            bench.report.add(Case {
                name: format!("run, {storage}: CPU"),
                floor: format!("{CPU_TARGET} us/row"),
                ratio: cpu / CPU_TARGET,
                target: Some(Target::AtMost(1.0)),
                ..case
            });
        }
    }
    // No target: the time depends on how fast the disk creates and renames three files a row.
    if storage != Storage::OnDisk {
        let case = at_once(bench, Storage::OnDisk, rows, 64, 1).await?;
        bench.report.add(case);
    }
    memory(bench).await
}

/// Where `run` keeps its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    InMemory,
    OnDisk,
}

impl Storage {
    /// In memory if it has enough free space, because there the speed of the disk does not count.
    fn with_room_for(rows: u64) -> Self {
        let free = statvfs(IN_MEMORY).map_or(0, |found| found.blocks_available() * found.fragment_size());
        if free > rows * BYTES_PER_ROW { Self::InMemory } else { Self::OnDisk }
    }
}

impl Display for Storage {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::InMemory => "in memory",
            Self::OnDisk => "on disk",
        })
    }
}

/// Seconds that a run takes if nothing but the API takes time.
fn ideal(rows: u64, concurrency: u64) -> f64 {
    (rows * LATENCY_MS) as f64 / 1e3 / concurrency as f64
}

async fn at_once(bench: &Bench, storage: Storage, rows: u64, concurrency: u64, times: usize) -> Outcome<Case> {
    let mut runs = Vec::new();
    for _ in 0..times {
        runs.push(packshot_run(bench, storage, rows, concurrency).await?);
    }
    let (ideal, wall) = (ideal(rows, concurrency), median_of(&runs, |run| run.wall.as_secs_f64()));
    Ok(Case {
        name: format!("run, {concurrency} at once, {storage}: share of ideal"),
        rows: Some(rows),
        rows_per_second: Some(rows as f64 / wall),
        cpu_us_per_row: Some(median_of(&runs, |run| run.cpu.as_secs_f64()) * 1e6 / rows as f64),
        peak_mib: Some(median_of(&runs, |run| mib(run.peak_kib))),
        floor: format!("N*L/C = {ideal:.2} s"),
        ratio: ideal / wall,
        target: None,
    })
}

async fn memory(bench: &mut Bench) -> Outcome<()> {
    bench.services.command("latency?ms=0").await?;
    let rows = bench.size.pick(10_000, 100_000, 1_000_000);
    let run = packshot_run(bench, Storage::with_room_for(rows), rows, 64).await?;
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

async fn packshot_run(bench: &Bench, storage: Storage, rows: u64, concurrency: u64) -> Outcome<Usage> {
    let under = if storage == Storage::InMemory { Path::new(IN_MEMORY) } else { &bench.disk };
    let out = tempfile::Builder::new().prefix("packshot-bench-").tempdir_in(under)?;
    let catalog = bench.catalog(rows)?;
    let (catalog, out) = (catalog.display().to_string(), out.path().display().to_string());
    let concurrency = concurrency.to_string();
    let arguments = ["run", &catalog, "--out", &out, "--no-archive", "--concurrency", &concurrency];
    let program = bench.binaries.join("packshot");
    Process::start(&program, &arguments, &bench.services.environment, bench.dir())?.finish(&[0]).await
}
