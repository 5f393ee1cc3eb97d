//! Checks every format that is stored or sent against a file in `golden/`, byte for byte.
//!
//! Buckets and queues hold files and messages of earlier versions. Each file in `golden/` is what the product writes; its
//! type must read the file and write the same bytes. Each file with `-old` in its name lacks fields that an earlier version
//! did not write; it must still be readable. `keys.txt` holds one key of every kind.
//!
//! If a test here fails after a refactoring, the refactoring has changed a format. To change a format on purpose, keep the
//! file as it is under a name with `-old`, add it to `OLD`, and edit the file.

use std::{collections::BTreeSet, fmt::Debug, fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    generate::{breaker::BreakerFile, guardrail::Abort},
    ledger,
    merge::{part::PartProvenance, tally::RunningTally},
    model::{
        column::{Column, ColumnMap},
        defaults::Defaults,
        error_class::ErrorClass,
        format::{Compression, Encoding, Format, LineEnding},
        job::Job,
        json,
        keys::{self, Catalog, JobId, Manifests},
        message::RowMessage,
        notification::{Notification, NotificationRecord},
        request::Request,
        result::{CompletedStatus, FailedStatus, RowResult},
        summary::{Latest, Status, Summary},
    },
    split::send::Checkpoint,
};

/// Reads a file and writes it, both as the product does.
type Rewrite = fn(&[u8]) -> Result<Vec<u8>, String>;

/// Asserts what a file of an earlier version means.
type Check = fn(&[u8]);

/// What the product writes today.
const FILES: [(&str, Rewrite); 36] = [
    ("abort.json", pretty::<Abort>),
    ("breaker-closed.json", pretty::<BreakerFile>),
    ("breaker-open.json", pretty::<BreakerFile>),
    ("checkpoint.json", compact::<Checkpoint>),
    // Not stored alone, but hashed into the job ids of local runs.
    ("column-map.json", compact::<ColumnMap>),
    ("defaults-minimal.json", compact::<Defaults>),
    ("defaults.json", compact::<Defaults>),
    ("job-minimal.json", pretty::<Job>),
    ("job.json", pretty::<Job>),
    ("latest.json", pretty::<Latest>),
    ("ledger-claimed.json", ledger_entry),
    ("ledger-completed-minimal.json", ledger_entry),
    ("ledger-completed.json", ledger_entry),
    ("ledger-failed-without-call.json", ledger_entry),
    ("ledger-failed.json", ledger_entry),
    ("ledger-released.json", ledger_entry),
    ("ledger-with-nonces.json", ledger_entry),
    ("ledger-with-others.json", ledger_entry),
    ("merge-part.json", compact::<PartProvenance>),
    ("merge-so-far.json", compact::<RunningTally>),
    ("message-minimal.json", row_message),
    ("message.json", row_message),
    ("notification-complete.json", compact::<Notification>),
    ("notification-rejected-minimal.json", compact::<Notification>),
    ("notification-rejected.json", compact::<Notification>),
    ("notification.json", compact::<Notification>),
    ("notified.json", compact::<NotificationRecord>),
    ("result-completed-reused.jsonl", result_line),
    ("result-completed.jsonl", result_line),
    ("result-failed.jsonl", result_line),
    ("result-rejected.jsonl", result_line),
    ("summary-complete-with-failures.json", pretty::<Summary>),
    ("summary-complete.json", pretty::<Summary>),
    ("summary-rejected-minimal.json", pretty::<Summary>),
    ("summary-rejected.json", pretty::<Summary>),
    ("summary-running.json", pretty::<Summary>),
];

/// What earlier versions wrote, and what it means now.
const OLD: [(&str, Check); 4] = [
    // Before other exports, other encodings and continuation rows were understood: all files were the plainest CSV.
    ("job-old.json", |bytes| {
        let job: Job = read(bytes).unwrap();
        assert_eq!((job.continuation_rows, &job.format, job.export.as_str()), (0, &Format::default(), ""));
        assert_eq!((job.rows, job.columns.len(), job.column_map.len()), (2002, 4, 0));
        assert_eq!((job.defaults.n, &job.defaults.background, &job.defaults.revision), (4, &None, &None));
    }),
    // Before running jobs had continuation rows to count. The count must go on from what was read, not begin again.
    ("merge-so-far-old.json", |bytes| {
        assert_same("merge-so-far-old.json", &compact::<RunningTally>(bytes).unwrap(), &golden("merge-so-far.json"));
    }),
    // Before assets were kept and results named the product's image and the prompt.
    ("result-completed-old.jsonl", |bytes| {
        let RowResult::Completed(row) = RowResult::read(bytes).unwrap() else { panic!("not completed") };
        assert_eq!((row.row, row.image_count, row.assets.len(), row.unknown_outcomes), (1001, 4, 0, 0));
        assert_eq!((row.short, &row.archive_error, &row.image_url, &row.prompt), (false, &None, &None, &None));
    }),
    // Before summaries said how many images were asked for, and counted continuation rows.
    ("summary-old.json", |bytes| {
        let summary: Summary = read(bytes).unwrap();
        assert_eq!((summary.status, summary.counts.rows, summary.counts.images), (Status::Complete, 2002, 5));
        assert_eq!((summary.counts.continuation_rows, summary.images_requested, summary.rows_merged), (0, 0, 0));
        assert!(summary.manifest.is_some() && summary.finished_at.is_some());
    }),
];

/// One key of every kind.
const KEYS: &str = "keys.txt";

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

fn compact<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    read::<T>(bytes).map(|value| json::to_vec(&value))
}

fn pretty<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    read::<T>(bytes).map(|value| json::to_pretty(&value))
}

fn ledger_entry(bytes: &[u8]) -> Result<Vec<u8>, String> {
    ledger::read(bytes).map(|entry| json::to_vec(&entry))
}

fn row_message(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let body = str::from_utf8(bytes).map_err(|error| error.to_string())?;
    RowMessage::decode(body).map(|message| message.encode().into_bytes()).map_err(|poison| poison.to_string())
}

/// All three readers of a line must agree.
fn result_line(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let result = RowResult::read(bytes).map_err(|error| error.to_string())?;
    assert_eq!(read(bytes), Ok(result.clone()));
    let failed = matches!(result, RowResult::Failed(_));
    assert_eq!(RowResult::read_if(failed, bytes).as_ref(), Some(&result));
    assert_eq!(RowResult::read_if(!failed, bytes), None);
    Ok(json::to_line(&result))
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"))
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares bytes, and shows them as text.
fn assert_same(name: &str, found: &[u8], expected: &[u8]) {
    let (shown, wanted) = (String::from_utf8_lossy(found), String::from_utf8_lossy(expected));
    assert!(found == expected, "{name} is no longer written as it was\n  found: {shown}\n wanted: {wanted}");
}

#[test]
fn every_golden_file_is_read_and_written_byte_for_byte() {
    for (name, rewrite) in FILES {
        let bytes = golden(name);
        let written = rewrite(&bytes).unwrap_or_else(|error| panic!("{name} cannot be read: {error}"));
        assert_same(name, &written, &bytes);
    }
}

#[test]
fn fields_of_a_later_version_are_ignored() {
    // The keys of this one are names of columns, so an unknown one is an error.
    for (name, rewrite) in FILES.into_iter().filter(|(name, _)| *name != "column-map.json") {
        let bytes = golden(name);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let end = text.rfind('}').unwrap();
        let extended = format!("{},\"added later\":[1]{}", &text[..end], &text[end..]);
        let written = rewrite(extended.as_bytes()).unwrap_or_else(|error| panic!("{name} cannot be read: {error}"));
        assert_same(name, &written, &bytes);
    }
}

#[test]
fn files_of_earlier_versions_are_still_read() {
    for (name, check) in OLD {
        check(&golden(name));
    }
}

#[test]
fn every_golden_file_is_checked() {
    let found: BTreeSet<String> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let checked = FILES.iter().map(|(name, _)| *name).chain(OLD.iter().map(|(name, _)| *name)).chain([KEYS]);
    assert_eq!(found, checked.map(str::to_owned).collect());
}

/// The files above show some values of each enum; this shows all of them.
#[test]
fn words() {
    fn hold<T: Serialize + DeserializeOwned + Debug + PartialEq>(words: &str, values: &[T]) {
        assert_eq!(json::to_string(values), words);
        assert_eq!(serde_json::from_str::<Vec<T>>(words).unwrap(), values);
    }
    hold(
        r#"["row","transient","account","unknown","aborted"]"#,
        &[ErrorClass::Row, ErrorClass::Transient, ErrorClass::Account, ErrorClass::Unknown, ErrorClass::Aborted],
    );
    hold(
        r#"["rejected","running","complete","complete_with_failures","failed"]"#,
        &[Status::Rejected, Status::Running, Status::Complete, Status::CompleteWithFailures, Status::Failed],
    );
    hold(r#"["completed"]"#, &[CompletedStatus::Completed]);
    hold(r#"["failed"]"#, &[FailedStatus::Failed]);
    hold(
        r#"["utf-8","utf-16le","utf-16be","windows-1252"]"#,
        &[Encoding::Utf8, Encoding::Utf16Le, Encoding::Utf16Be, Encoding::Windows1252],
    );
    hold(r#"["lf","crlf","cr"]"#, &[LineEnding::Lf, LineEnding::CrLf, LineEnding::Cr]);
    hold(r#"["gzip"]"#, &[Compression::Gzip]);
    hold(
        r#"["sku","title","image_url","brand","style_tags","n","size","quality","background","model","prompt","revision"]"#,
        &Column::ALL,
    );
}

#[test]
fn object_keys() {
    let (bucket, key) = ("packshot-example", "incoming/spring/shoes.csv.gz");
    let job = JobId::of(bucket, key, "v1", "");
    let catalog = Catalog::of(key).unwrap();
    let files = Manifests::of(&catalog, &job);
    // A local run hashes its options into the id, in the form of these files.
    let text = |name| String::from_utf8(golden(name)).unwrap();
    let edition = text("defaults.json") + &text("column-map.json");
    let local = JobId::of("packshot-out", "incoming/shoes.csv", "e1", &edition);
    let fingerprint = |name| RowMessage::decode(&text(name)).unwrap().request.fingerprint();
    let plain =
        Request { revision: None, background: None, ..RowMessage::decode(&text("message.json")).unwrap().request };
    let found = [
        ("incoming", keys::INCOMING.to_owned()),
        ("results", keys::RESULTS.to_owned()),
        ("job", keys::job(&job)),
        ("job of a local run", keys::job(&local)),
        ("results of a part", keys::part_results(&job, 12)),
        ("result of the first row", keys::result(&job, 1, "SKU-1001")),
        ("result of the last row of a part", keys::result(&job, 1_000, "SKU_1.a")),
        ("result of the first row of a part", keys::result(&job, 1_001, "SKU_1.a")),
        ("result with an escaped SKU", keys::result(&job, 12_345_678, "a/b ü~%")),
        ("result with a SKU of dots", keys::result(&job, 2, "..")),
        ("result without a SKU", keys::result(&job, 3, "")),
        ("result with a shortened SKU", keys::result(&job, 4, &"é".repeat(40))),
        ("ledger, full request", keys::ledger(&fingerprint("message.json"))),
        ("ledger, without revision and background", keys::ledger(&plain.fingerprint())),
        ("ledger, minimal request", keys::ledger(&fingerprint("message-minimal.json"))),
        ("checkpoints", keys::CHECKPOINTS.to_owned()),
        ("checkpoint", keys::checkpoint(&job)),
        ("merge of a part", keys::part_provenance(&job, 12)),
        ("merge so far", keys::running_tally(&job)),
        ("all notified", keys::NOTIFIED.to_owned()),
        ("notified", keys::notified(&job)),
        ("breaker", keys::BREAKER.to_owned()),
        ("abort", keys::abort(&job)),
        ("image", keys::image(&catalog, "SKU-1001", 4, "webp")),
        ("image with an escaped SKU", keys::image(&catalog, "a/b", 1, "png")),
        ("manifest", files.manifest()),
        ("parts", files.parts()),
        ("part", files.part(12)),
        ("failed rows", files.failed_csv()),
        ("summary", files.summary()),
        ("review", files.review(1)),
        ("second page of the review", files.review(2)),
        ("all pages of the review", files.reviews()),
        ("latest", files.latest()),
    ];
    let found: String = found.map(|(what, key)| format!("{what}: {key}\n")).concat();
    assert_same(KEYS, found.as_bytes(), &golden(KEYS));
}
