//! The splitter: its first pass beside `csv`, both passes and sending beside the SDK alone, and its memory.

use super::{
    context::Bench,
    statistics::{median_of, mib},
};
use crate::{
    outcome::Outcome,
    process::Usage,
    report::{Case, Target},
};

const IN_FLIGHT: &str = "32";

pub(super) async fn measure(bench: &mut Bench) -> Outcome<()> {
    validation(bench).await?;
    sending(bench).await?;
    memory(bench).await
}

async fn validation(bench: &mut Bench) -> Outcome<()> {
    let rows = bench.size.pick(200_000, 1_000_000, 1_000_000);
    let file = bench.catalog(rows)?.display().to_string();
    let (mut ours, mut floors, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.size.runs() {
        ours.push(bench.baseline(&["validate", &file]).await?);
        floors.push(bench.baseline(&["csv", &file]).await?);
        messages.push(bench.baseline(&["message", &file]).await?);
    }
    let per_row = |runs: &[Usage]| median_of(runs, |run| run.cpu.as_secs_f64()) * 1e6 / rows as f64;
    let (cpu, floor) = (per_row(&ours), per_row(&floors));
    bench.report.add(Case {
        name: "splitter, validation alone: CPU".into(),
        rows: Some(rows),
        rows_per_second: Some(rows as f64 / median_of(&ours, |run| run.wall.as_secs_f64())),
        cpu_us_per_row: Some(cpu),
        peak_mib: Some(median_of(&ours, |run| mib(run.peak_kib))),
        floor: format!("csv {floor:.2} us/row"),
        ratio: floor / cpu,
        target: Some(Target::AtLeast(0.6)),
    });
    let message = per_row(&messages);
    bench.report.add(Case {
        name: "(floor: csv and serde_json message)".into(),
        rows: Some(rows),
        cpu_us_per_row: Some(message),
        floor: format!("csv {floor:.2} us/row"),
        ratio: floor / message,
        ..Case::default()
    });
    Ok(())
}

async fn sending(bench: &mut Bench) -> Outcome<()> {
    let rows = bench.size.pick(20_000, 200_000, 200_000);
    let file = bench.catalog(rows)?.display().to_string();
    let queue = bench.services.variable("ROWS_QUEUE_URL").to_owned();
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..bench.size.runs() {
        ours.push(bench.split(rows, &[]).await?);
        floors.push(bench.baseline(&["send", &file, &queue, IN_FLIGHT]).await?);
        let sent = bench.services.count(|counts| counts.messages).await?;
        if sent != rows {
            return Err(format!("the baseline sent {sent} messages of {rows}").into());
        }
    }
    let micros = |seconds: f64| seconds * 1e6 / rows as f64;
    let cpu = micros(median_of(&ours, |run| run.cpu.as_secs_f64()));
    let floor = micros(median_of(&floors, |run| run.cpu.as_secs_f64()));
    let wall = micros(median_of(&ours, |run| run.wall.as_secs_f64()));
    let floor_wall = micros(median_of(&floors, |run| run.wall.as_secs_f64()));
    let case = Case {
        rows: Some(rows),
        rows_per_second: Some(1e6 / wall),
        cpu_us_per_row: Some(cpu),
        peak_mib: Some(median_of(&ours, |run| mib(run.peak_kib))),
        ..Case::default()
    };
    bench.report.add(Case {
        name: "splitter, both passes and sending: CPU".into(),
        floor: format!("SDK {floor:.1} us/row"),
        ratio: floor / cpu,
        target: Some(Target::AtLeast(0.85)),
        ..case.clone()
    });
    bench.report.add(Case {
        name: "splitter, both passes and sending: clock".into(),
        floor: format!("SDK {:.0} rows/s", 1e6 / floor_wall),
        ratio: floor_wall / wall,
        ..case
    });
    Ok(())
}

async fn memory(bench: &mut Bench) -> Outcome<()> {
    for rows in [bench.size.pick(50_000, 1_000_000, 1_000_000), bench.size.pick(100_000, 5_000_000, 5_000_000)] {
        // Without TLS, which takes time and does not change the memory.
        let url = bench.services.url.clone();
        let split = bench.split(rows, &[("AWS_ENDPOINT_URL", &url)]).await?;
        let allowed = 64.0 + (32 * rows) as f64 / 1_048_576.0;
        bench.report.add(Case {
            name: format!("splitter, {rows} rows: memory"),
            rows: Some(rows),
            rows_per_second: Some(rows as f64 / split.wall.as_secs_f64()),
            cpu_us_per_row: Some(split.cpu.as_secs_f64() * 1e6 / rows as f64),
            peak_mib: Some(mib(split.peak_kib)),
            floor: format!("64 MiB + 32 B/row = {allowed:.0}"),
            ratio: mib(split.peak_kib) / allowed,
            target: Some(Target::AtMost(1.0)),
        });
    }
    Ok(())
}
