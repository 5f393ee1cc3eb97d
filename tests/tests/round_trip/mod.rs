//! Splitter, generator and merger together, in memory: any rows give one manifest line per row, with events and messages in any order
//! and repeated.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use packshot_pipeline::{
    model::{result::RowResult, spreadsheet},
    ports::{Clock, Queue as _},
};
use proptest::prelude::*;
use serde_json::Value;

mod forms;
mod harness;
mod notifications;
use harness::{Harness, block_on, run_in_order};

const HEADER: [&str; 6] = ["sku", "title", "image_url", "brand", "n", "remark"];

/// The content of a field.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[A-Z]{2}-[0-9]{2}",
        2 => "\\PC{0,8}",
        1 => "[a-z \t\r\n\"',;/.%\u{feff}\u{fffe}é👟]{0,8}",
        1 => ".{100,300}",
        1 => Just("../../x".to_owned()),
        1 => Just(String::new()),
    ]
}

fn row() -> impl Strategy<Value = Vec<String>> {
    let url = prop_oneof![
        9 => "https://cdn\\.example\\.com/[a-c]\\.png",
        1 => Just("ftp://cdn.example.com/a.png".to_owned()),
        1 => Just(String::new()),
    ];
    let n = prop_oneof![Just(""), Just("1"), Just("4"), Just("5"), Just("two")];
    // Few titles and images, so that some rows have the same request.
    let title = prop_oneof![3 => "(mug|shoe|bag)", 1 => text()];
    (text(), title, url, n, text(), prop_oneof![8 => Just(6usize), 1 => Just(3), 1 => Just(8)]).prop_map(
        |(sku, title, url, n, remark, fields)| {
            let mut row = vec![sku, title, url, "Northline".into(), n.into(), remark];
            row.resize(fields, "too much".into());
            row
        },
    )
}

/// A catalog in which some rows are repeated, unchanged or with another title.
fn catalog() -> impl Strategy<Value = Vec<Vec<String>>> {
    let again =
        prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 0..6);
    (prop::collection::vec(row(), 0..30), again).prop_map(|(mut rows, again)| {
        rows.retain(|row| !is_blank(row));
        for (from, to, other) in again.into_iter().filter(|_| !rows.is_empty()).collect::<Vec<_>>() {
            let mut row = from.get(&rows).clone();
            if other {
                row[1] = "another".into();
            }
            rows.insert(to.index(rows.len() + 1), row);
        }
        rows
    })
}

fn csv_of(rows: &[Vec<String>]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    writer.write_record(HEADER).unwrap();
    rows.iter().for_each(|row| writer.write_record(row).unwrap());
    writer.into_inner().unwrap()
}

/// Invisible characters, which a SKU may not have.
fn hidden(c: char) -> bool {
    "\u{ad}\u{200b}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{feff}".contains(c)
        || ('\u{2060}'..='\u{2069}').contains(&c)
        || matches!(u32::from(c) % 0x1_0000, 0xfffe | 0xffff)
}

/// An empty record is no row.
fn is_blank(row: &[String]) -> bool {
    row.iter().all(|field| field.trim_matches(|c: char| c.is_whitespace() || c == '\u{1a}').is_empty())
}

/// For each row its SKU, and whether it is valid: a second implementation of the rules.
fn expected(rows: &[Vec<String>]) -> Vec<(String, bool)> {
    let mut first: BTreeMap<String, Vec<String>> = BTreeMap::new();
    rows.iter()
        .map(|row| {
            let fields: Vec<String> = row.iter().map(|field| field.trim().to_owned()).collect();
            let sku = fields[0].clone();
            let sound = fields.len() == HEADER.len()
                && !sku.is_empty()
                && !sku.chars().any(|c| c.is_control() || hidden(c))
                && !spreadsheet::is_defused(&sku)
                && !fields[..5].iter().any(|field| field.chars().any(|c| c.is_control() && !"\t\r\n".contains(c)))
                && !fields[1].is_empty()
                && fields[2].starts_with("https://")
                && ["", "1", "4"].contains(&&*fields[4]);
            // The fields that the request depends on; an absent `n` is 4.
            let asked = || vec![fields[1].clone(), fields[2].clone(), fields[4].replace('4', "")];
            let good = sound && *first.entry(sku.clone()).or_insert_with(asked) == asked();
            (sku, good)
        })
        .collect()
}

/// The lines without the fields that depend on time, or on which of the rows with the same request was first.
fn timeless(manifest: &str) -> Vec<Value> {
    let mut paid = BTreeSet::new();
    let lines: Vec<Value> = manifest
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let fields = line.as_object_mut().unwrap();
            for time in ["completed_at", "failed_at", "latency_ms"] {
                fields.remove(time);
            }
            if fields["status"] == "completed" {
                let (reused, attempts) = (fields.remove("reused").unwrap(), fields.remove("attempts").unwrap());
                assert_eq!(reused == Value::Bool(true), attempts == 0);
                if reused == Value::Bool(false) {
                    assert!(paid.insert(fields["fingerprint"].to_string()), "two rows with the same request have paid");
                }
            }
            line
        })
        .collect();
    let completed = lines.iter().filter(|line| line["status"] == "completed");
    assert_eq!(completed.map(|line| line["fingerprint"].to_string()).collect::<BTreeSet<_>>(), paid);
    lines
}

fn shuffle<T>(items: &mut [T], clock: &dyn Clock) {
    for end in (1..items.len()).rev() {
        items.swap(end, (clock.random() % (end as u64 + 1)) as usize);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_in_one_line_per_row_out(rows in catalog()) {
        block_on(async {
            let (harness, job, files) = run_in_order(&csv_of(&rows)).await;
            let expected = expected(&rows);
            let manifest = harness.read(&files.manifest()).await;
            assert!(manifest.is_empty() || manifest.ends_with('\n'));
            let results: Vec<RowResult> = manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let found: Vec<(String, bool)> = results
                .iter()
                .map(|result| match result {
                    RowResult::Completed(row) => (row.sku.clone(), true),
                    RowResult::Failed(row) => (row.sku.clone(), false),
                })
                .collect();
            assert_eq!(found, expected);
            assert_eq!(results.iter().map(RowResult::row).collect::<Vec<_>>(), (1..=rows.len() as u64).collect::<Vec<_>>());

            let completed = expected.iter().filter(|(_, good)| *good).count();
            assert_eq!((job.rows, job.valid), (rows.len() as u64, completed as u64));
            let fingerprints: BTreeSet<_> = results
                .iter()
                .filter_map(|result| match result {
                    RowResult::Completed(row) => Some(row.fingerprint.clone()),
                    RowResult::Failed(_) => None,
                })
                .collect();
            assert_eq!(harness.api.calls.load(Ordering::Relaxed), fingerprints.len());
            timeless(&manifest);

            // failed.csv has all failed rows, unchanged, so that they can be fixed and uploaded again.
            let failed = harness.read(&files.failed_csv()).await;
            let failed: Vec<csv::StringRecord> = csv::ReaderBuilder::new()
                .flexible(true)
                .from_reader(failed.as_bytes())
                .records()
                .collect::<Result<_, _>>()
                .unwrap();
            let bad = rows.iter().zip(&expected).filter(|(_, (_, good))| !good).map(|(row, _)| row);
            for (line, row) in failed.iter().zip(bad) {
                let kept: Vec<&str> = line.iter().take(row.len().min(HEADER.len())).collect();
                let kept: Vec<&str> = kept.into_iter().map(spreadsheet::restore).collect();
                assert_eq!(kept, row[..kept.len()]);
            }
            assert_eq!(failed.len(), rows.len() - completed);

            let summary: Value = serde_json::from_str(&harness.read(&files.summary()).await).unwrap();
            let status = match (completed, rows.len()) {
                (completed, all) if completed == all => "complete",
                (0, _) => "failed",
                _ => "complete_with_failures",
            };
            assert_eq!(summary["status"], status);
        });
    }

    /// If `failed.csv` is uploaded unchanged, its rows have the same input as in the first catalog, also the second time. Only rows
    /// that contradicted another row may be valid without it.
    #[test]
    fn failed_rows_uploaded_again_are_the_same_rows(rows in catalog()) {
        block_on(async {
            let (harness, job, files) = run_in_order(&csv_of(&rows)).await;
            let failed = harness.read(&files.failed_csv()).await;
            let (again, job_again, files_again) = run_in_order(failed.as_bytes()).await;
            let names: Vec<&str> = spreadsheet::own_columns(&job_again.columns).collect();
            assert_eq!(names, job.columns);
            let inputs = |manifest: String| -> Vec<Value> {
                let lines = manifest.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
                let failed = lines.filter(|line| line["status"] == "failed" && line["error_code"] != "field_count");
                failed.filter(|line| line["error_code"] != "duplicate_sku").map(|mut line| {
                    let input = line["input"].as_object_mut().unwrap();
                    input.retain(|name, _| !spreadsheet::ERROR_COLUMNS.contains(&name.as_str()));
                    line["input"].take()
                }).collect()
            };
            let first = inputs(harness.read(&files.manifest()).await);
            let second = inputs(again.read(&files_again.manifest()).await);
            // Rows with a wrong number of fields now have the right one, so they may fail for another reason; no row is lost.
            let mut rest = second.iter();
            assert!(first.iter().all(|row| rest.any(|other| other == row)), "{first:?} in {second:?}");
            assert_eq!(job_again.rows, job.rows - job.valid);
            let third = again.read(&files_again.failed_csv()).await;
            assert_eq!(third.lines().next(), failed.lines().next());
        });
    }

    #[test]
    fn order_and_repetition_do_not_change_the_outcome(rows in catalog(), seed in any::<u64>()) {
        block_on(async {
            let csv = csv_of(&rows);
            let (in_order, _, files) = run_in_order(&csv).await;

            let mut harness = Harness::with(&csv, seed).await;
            let job = harness.split().await;
            assert_eq!(harness.split().await, job);
            harness.rows.send(&harness.rows.contents()).await.unwrap();
            let mut deliveries = harness.rows.try_receive(usize::MAX);
            assert_eq!(deliveries.len() as u64, 2 * job.valid);
            shuffle(&mut deliveries, &*harness.clock);
            let mut events = Vec::new();
            while !deliveries.is_empty() {
                let size = 1 + harness.clock.random() as usize % 7;
                let batch = deliveries.split_off(deliveries.len().saturating_sub(size));
                harness.generate(batch).await;
                events.extend(harness.changed());
                if harness.clock.random().is_multiple_of(3) {
                    harness.merge(events.clone()).await;
                }
            }
            harness.generate_all().await;
            events.extend(harness.changed());
            let again = events.clone();
            events.extend(again);
            shuffle(&mut events, &*harness.clock);
            let second = events.split_off(events.len() / 2);
            futures::join!(harness.merge(events), harness.merge(second));

            assert_eq!(
                timeless(&harness.read(&files.manifest()).await),
                timeless(&in_order.read(&files.manifest()).await)
            );
            assert_eq!(harness.read(&files.failed_csv()).await, in_order.read(&files.failed_csv()).await);
            let calls = |harness: &Harness| harness.api.calls.load(Ordering::Relaxed);
            assert_eq!(calls(&harness), calls(&in_order));
        });
    }
}
