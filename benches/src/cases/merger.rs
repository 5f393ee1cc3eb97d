//! The merger: its CPU per row beside that of GetObject, its memory, and how its CPU grows with ten times the rows.

use packshot_benches::samples;
use packshot_pipeline::model::{
    keys::{JobId, Manifests},
    summary::Summary,
};

use super::{
    context::Bench,
    statistics::{median_of, mib},
};
use crate::{
    events,
    lambda::Invocation,
    outcome::Outcome,
    process::Usage,
    report::{Case, Target},
};

const IN_FLIGHT: &str = "64";
const MEMORY_MIB: f64 = 128.0;

pub(super) async fn measure(bench: &mut Bench) -> Outcome<()> {
    let small = bench.size.pick(5_000, 100_000, 100_000);
    let (ours, floors) = with_baseline(bench, small, bench.size.runs()).await?;
    let micros = |seconds: f64, rows: u64| seconds * 1e6 / rows as f64;
    let cpu = micros(median_of(&ours, |run| run.cpu.as_secs_f64()), small);
    let floor = micros(median_of(&floors, |run| run.cpu.as_secs_f64()), floor_rows(small));
    add(bench, "merger", small, cpu, &ours, floor);

    let large = small * 10;
    let (ours, floors) = with_baseline(bench, large, 1).await?;
    let large_cpu = micros(median_of(&ours, |run| run.cpu.as_secs_f64()), large);
    let floor = micros(median_of(&floors, |run| run.cpu.as_secs_f64()), floor_rows(large));
    add(bench, "merger", large, large_cpu, &ours, floor);
    let peak = median_of(&ours, |run| mib(run.peak_kib));
    bench.report.add(Case {
        name: format!("merger, {large} rows: growth"),
        rows: Some(large),
        cpu_us_per_row: Some(large_cpu),
        floor: format!("10 x of {small} rows"),
        ratio: 10.0 * large_cpu / cpu,
        target: Some(Target::AtMost(10.5)),
        ..Case::default()
    });
    bench.report.add(Case {
        name: format!("merger, {large} rows: memory"),
        rows: Some(large),
        peak_mib: Some(peak),
        floor: format!("{MEMORY_MIB} MiB"),
        ratio: peak / MEMORY_MIB,
        target: Some(Target::AtMost(1.0)),
        ..Case::default()
    });
    Ok(())
}

fn add(bench: &mut Bench, name: &str, rows: u64, cpu: f64, ours: &[Invocation], floor: f64) {
    bench.report.add(Case {
        name: format!("{name}, {rows} rows to a manifest: CPU"),
        rows: Some(rows),
        rows_per_second: Some(rows as f64 / median_of(ours, |run| run.wall.as_secs_f64())),
        cpu_us_per_row: Some(cpu),
        peak_mib: Some(median_of(ours, |run| mib(run.peak_kib))),
        floor: format!("GetObject {floor:.0} us/row"),
        ratio: floor / cpu,
        target: Some(Target::AtLeast(0.85)),
    });
}

/// The requests of the baseline: its CPU per row does not change with more.
fn floor_rows(rows: u64) -> u64 {
    rows.min(20_000)
}

/// Merges a job whose rows all have results, `runs` times, and runs the baseline each time. Every run has a new process, and
/// a bucket without parts, so that nothing is reused.
async fn with_baseline(bench: &Bench, rows: u64, runs: usize) -> Outcome<(Vec<Invocation>, Vec<Usage>)> {
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    let plain = bench.services.url.clone();
    for _ in 0..runs {
        bench.split(rows, &[("AWS_ENDPOINT_URL", &plain)]).await?;
        let id = bench.services.command("results").await?;
        let job = JobId::parse(&id).ok_or("the fake services returned no job id")?;
        floors.push(bench.baseline(&["get", &id, &floor_rows(rows).to_string(), IN_FLIGHT]).await?);
        let mut merger = bench.function("merger", &[]).await?;
        let done = merger.invoke(events::merge(&job, rows)).await?;
        if done.answer.windows(14).any(|part| part == b"itemIdentifier") {
            return Err(format!("the merger gave messages back\n{}", merger.process.log_tail()).into());
        }
        verify(bench, &job, rows).await?;
        ours.push(done);
    }
    Ok((ours, floors))
}

/// Fails unless the summary counts every row as completed.
async fn verify(bench: &Bench, job: &JobId, rows: u64) -> Outcome<()> {
    let text = bench.services.object(&Manifests::of(&samples::catalog_id(), job).summary()).await?;
    let summary: Summary = serde_json::from_str(&text)?;
    if summary.manifest.is_none() || summary.counts.completed != rows {
        return Err(format!("the manifest is not complete: {text}").into());
    }
    Ok(())
}
