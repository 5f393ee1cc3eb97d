//! The generator: its CPU beside that of the requests that it has to make, its memory per call in flight, and the time of a
//! batch on a small Lambda.

use packshot_benches::samples;
use packshot_pipeline::model::keys;

use super::{
    context::Bench,
    statistics::{median, median_of, mib},
};
use crate::{
    events,
    lambda::{Invocation, Lambda},
    outcome::Outcome,
    report::{Case, Target},
};

const BATCH: u64 = 100;

pub(super) async fn measure(bench: &mut Bench) -> Outcome<()> {
    cpu(bench).await?;
    memory(bench).await?;
    small_lambda(bench).await
}

async fn cpu(bench: &mut Bench) -> Outcome<()> {
    let batches = bench.size.pick(3, 20, 20);
    let rows = batches * BATCH;
    bench.services.command("reset").await?;
    bench.services.command("latency?ms=50").await?;
    let url = format!("{}/v1/images/generations", bench.services.variable("API_BASE_URL"));
    let (count, at_once) = (rows.to_string(), BATCH.to_string());
    let mut function = bench.function("generator", &[]).await?;
    let mut next = 1;
    // The first batch is not counted: it fetches the secret and opens the connections.
    invoke(bench, &mut function, &mut next, BATCH).await?;
    let (mut ours, mut all, mut puts, mut calls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.size.runs() {
        let mut cpu = 0.0;
        for _ in 0..batches {
            let done = invoke(bench, &mut function, &mut next, BATCH).await?;
            cpu += done.cpu.as_secs_f64();
        }
        ours.push(cpu * 1e6 / rows as f64);
        for (floor, arguments) in [
            (&mut all, &["generate", &url, &count, &at_once][..]),
            (&mut puts, &["put", &count, "32"]),
            (&mut calls, &["call", &url, &count, &at_once]),
        ] {
            floor.push(bench.baseline(arguments).await?.cpu.as_secs_f64() * 1e6 / rows as f64);
        }
    }
    let (cpu, floor) = (median(ours), median(all));
    bench.report.add(Case {
        name: "generator, 100 messages at once: CPU".into(),
        rows: Some(rows),
        cpu_us_per_row: Some(cpu),
        peak_mib: Some(mib(function.process.peak_kib()?)),
        floor: format!("3 PUT + 1 call {floor:.0} us"),
        ratio: cpu / floor,
        target: Some(Target::AtMost(1.3)),
        ..Case::default()
    });
    for (name, floors) in [("(floor: one PutObject of 500 B)", puts), ("(floor: one reqwest call)", calls)] {
        let one = median(floors);
        bench.report.add(Case {
            name: name.into(),
            rows: Some(rows),
            cpu_us_per_row: Some(one),
            floor: format!("3 PUT + 1 call {floor:.0} us"),
            ratio: one / floor,
            ..Case::default()
        });
    }
    Ok(())
}

/// Invokes with a batch of new rows. Fails unless every row was called for once and none was given back.
async fn invoke(bench: &Bench, function: &mut Lambda, next: &mut u64, rows: u64) -> Outcome<Invocation> {
    bench.services.counts().await?;
    let batch = *next..*next + rows;
    *next = batch.end;
    let last = result_key(batch.end - 1);
    let done = function.invoke(events::generate(&samples::job(), batch)).await?;
    let calls = bench.services.count(|counts| counts.calls).await?;
    let answer = String::from_utf8_lossy(&done.answer);
    if calls != rows || answer.contains("itemIdentifier") {
        let log = function.process.log_tail();
        return Err(format!("{calls} calls for {rows} rows, answer {answer}\n{log}").into());
    }
    if !bench.services.object(&last).await?.contains(r#""status":"completed""#) {
        return Err(format!("{last} is not completed").into());
    }
    Ok(done)
}

fn result_key(row: u64) -> String {
    keys::result(&samples::job(), row, &samples::sku(row))
}

async fn memory(bench: &mut Bench) -> Outcome<()> {
    bench.services.command("reset").await?;
    bench.services.command("latency?ms=2000").await?;
    let (few, many) = (100, 1_000);
    let (mut peaks_few, mut peaks_many) = (Vec::new(), Vec::new());
    let mut next = 1;
    for _ in 0..bench.size.runs() {
        for (rows, peaks) in [(few, &mut peaks_few), (many, &mut peaks_many)] {
            let mut function = bench.function("generator", &[]).await?;
            peaks.push(invoke(bench, &mut function, &mut next, rows).await?);
        }
    }
    let (small, large) =
        (median_of(&peaks_few, |done| done.peak_kib as f64), median_of(&peaks_many, |done| done.peak_kib as f64));
    let each = (large - small) * 1.024 / (many - few) as f64;
    bench.report.add(Case {
        name: "generator: memory per call in flight".into(),
        rows: Some(many),
        peak_mib: Some(large / 1024.0),
        floor: format!("40 kB; has {each:.1} kB"),
        ratio: each / 40.0,
        target: Some(Target::AtMost(1.0)),
        ..Case::default()
    });
    Ok(())
}

async fn small_lambda(bench: &mut Bench) -> Outcome<()> {
    bench.services.command("reset").await?;
    bench.services.command("latency?ms=2000").await?;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut next = 1;
    for _ in 0..bench.size.runs() {
        let mut function = bench.function("generator", &[]).await?;
        // After the start: Lambda limits the CPU of invocations only.
        if !function.process.limit_to_lambda(128)? {
            eprintln!("the small Lambda is left out: this machine does not permit control groups");
            return Ok(());
        }
        first.push(invoke(bench, &mut function, &mut next, BATCH).await?);
        second.push(invoke(bench, &mut function, &mut next, BATCH).await?);
    }
    for (which, runs, target) in [("first", first, None), ("second", second, Some(Target::AtMost(1.0)))] {
        let wall = median_of(&runs, |done| done.wall.as_secs_f64());
        bench.report.add(Case {
            name: format!("generator, 128 MB, {which} batch, 2 s API"),
            rows: Some(BATCH),
            rows_per_second: Some(BATCH as f64 / wall),
            cpu_us_per_row: Some(median_of(&runs, |done| done.cpu.as_secs_f64()) * 1e6 / BATCH as f64),
            peak_mib: Some(median_of(&runs, |done| mib(done.peak_kib))),
            floor: format!("{wall:.2} s of 2.4 s"),
            ratio: wall / 2.4,
            target,
        });
    }
    Ok(())
}
