//! Input files as users have them: the outcome of each file in `tests/inputs/` is next to it, in `NAME.expected.json`.
//!
//! `INPUTS_WRITE=1 cargo test -p packshot-tests --test contract inputs` writes the outcome of a new file. Review it before you
//! commit it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use packshot_aws::config::process_environment;
use packshot_pipeline::{
    catalog::{
        reader::{CatalogReader, ReadError},
        records::MAX_RECORD_BYTES,
        validate::{Accepted, Rejected},
    },
    model::{
        catalog_error::CatalogError,
        column::parse_column_map,
        defaults::Defaults,
        etag::Etag,
        job::Source,
        keys::{Catalog, JobId},
    },
    ports::StoreError,
    settings::SplitSettings,
    split::validate,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Reads and validates a file; returns its format and rows, or why it is no catalog.
async fn outcome(name: &str, chunks: Vec<Bytes>, column_map: &str) -> Value {
    let key = format!("incoming/{name}");
    let catalog = Catalog::of(&key).unwrap_or_else(|| panic!("{name} is not the name of a catalog"));
    let id = JobId::of("b", &key, "v", "");
    let source = Source {
        bucket: "b".into(),
        key,
        version_id: None,
        etag: Etag("e".into()),
        bytes: 0,
        last_modified: jiff::Timestamp::UNIX_EPOCH,
    };
    let defaults = Defaults {
        prompt_template: Some("{{ title }} | {{ brand }} | {{ style_tags }}".into()),
        ..Defaults::default()
    };
    let column_map = parse_column_map(column_map).unwrap();
    let settings = SplitSettings { defaults, column_map: column_map.clone(), ..SplitSettings::default() };
    let body = stream::iter(chunks.into_iter().map(Ok)).boxed();
    let mut rows = Vec::new();
    let validated = |row: u64, line: u64, verdict: &Result<Accepted<'_>, Rejected>| {
        rows.push(match verdict {
            Ok(Accepted { sku, request }) => {
                let mut requested = serde_json::to_value(request).unwrap();
                // Defaults say nothing about the file.
                for (field, default) in [("model", "gpt-image-1"), ("size", "1024x1024"), ("quality", "high")] {
                    if requested[field] == default {
                        requested.as_object_mut().unwrap().remove(field);
                    }
                }
                json!({"row": row, "line": line, "sku": sku, "accepted": requested})
            }
            Err(Rejected { sku, code, message }) => {
                json!({"row": row, "line": line, "sku": sku, "rejected": code, "message": message})
            }
        });
    };
    let reader = CatalogReader::with_map(body, column_map);
    match validate(reader, &settings, &id, &catalog, source, jiff::Timestamp::UNIX_EPOCH, validated).await {
        Ok(job) => json!({
            "format": job.format,
            "export": job.export,
            "columns": job.columns,
            "mapping": job.mapping,
            "continuation_rows": job.continuation_rows,
            "rows": rows,
        }),
        Err(ReadError::Catalog(problem)) => json!({"not_a_catalog": problem}),
        Err(ReadError::Store(error)) => panic!("{error}"),
    }
}

fn cut(bytes: &[u8], chunk: usize) -> Vec<Bytes> {
    bytes.chunks(chunk).map(Bytes::copy_from_slice).collect()
}

fn expectation(input: &Path) -> PathBuf {
    let name = input.file_name().unwrap().to_str().unwrap();
    input.with_file_name(format!("{name}.expected.json"))
}

#[tokio::test]
async fn every_file_has_its_outcome() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (inputs, expectations): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| !file.to_str().unwrap().ends_with(".expected.json"));
    assert!(inputs.len() >= 55, "only {} inputs", inputs.len());
    let write = process_environment("INPUTS_WRITE").is_some();
    let mut wrong = Vec::new();
    for input in &inputs {
        let name = input.file_name().unwrap().to_str().unwrap();
        let expected: Option<Value> =
            std::fs::read(expectation(input)).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap());
        let column_map =
            expected.as_ref().and_then(|expected| expected["column_map"].as_str()).unwrap_or("").to_owned();
        let bytes = std::fs::read(input).unwrap();
        let mut found = outcome(name, cut(&bytes, 64 * 1024), &column_map).await;
        for chunk in [1, 2, 5, 61] {
            assert_eq!(outcome(name, cut(&bytes, chunk), &column_map).await, found, "{name} in chunks of {chunk}");
        }
        if !column_map.is_empty() {
            found["column_map"] = column_map.into();
        }
        if write {
            std::fs::write(expectation(input), serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
        } else if expected.as_ref() != Some(&found) {
            wrong.push(format!("{name}: {}", serde_json::to_string_pretty(&found).unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let expected_for: Vec<_> = inputs.iter().map(|input| expectation(input)).collect();
    let stale: Vec<_> = expectations.iter().filter(|file| !expected_for.contains(file)).collect();
    assert!(stale.is_empty(), "outcomes without an input: {stale:?}");
}

/// Every rejection names the place, the problem and the remedy.
#[test]
fn every_message_names_line_and_remedy() {
    const REMEDIES: [&str; 17] = [
        "remove",
        "save",
        "write",
        "put",
        "must",
        "map",
        "keep",
        "cut",
        "close",
        "shorten",
        "enter",
        "needs",
        "pack",
        "rename",
        "is not 1, 2, 3 or 4",
        "use an address",
        "add",
    ];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs");
    let mut codes: BTreeMap<String, u32> = BTreeMap::new();
    for file in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if !file.to_str().unwrap().ends_with(".expected.json") {
            continue;
        }
        let expected: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let has_remedy = |text: &str| REMEDIES.iter().any(|remedy| text.to_lowercase().contains(remedy));
        if let Some(problem) = expected["not_a_catalog"].as_object() {
            assert!(has_remedy(problem["reason"].as_str().unwrap()), "{}: {problem:?}", file.display());
            *codes.entry(problem["code"].to_string()).or_default() += 1;
        }
        for row in expected["rows"].as_array().into_iter().flatten().filter(|row| row["rejected"].is_string()) {
            let message = row["message"].as_str().unwrap();
            assert!(message.starts_with(&format!("line {}", row["line"])), "{message}");
            assert!(has_remedy(message), "{}: {message}", file.display());
            let of_the_whole_row =
                matches!(row["rejected"].as_str(), Some("field_count" | "stray_quote" | "row_too_large"));
            assert!(of_the_whole_row || message.contains(", column "), "{}: {message}", file.display());
            *codes.entry(row["rejected"].to_string()).or_default() += 1;
        }
    }
    assert!(codes.len() >= 18, "{codes:?}");
}

/// Reads a catalog from these chunks, which must fail.
async fn problem_of(chunks: impl Iterator<Item = Bytes> + Send + 'static) -> CatalogError {
    let mut reader = CatalogReader::new(stream::iter(chunks.map(Ok::<_, StoreError>)).boxed());
    loop {
        match reader.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("read to the end"),
            Err(ReadError::Catalog(problem)) => return problem,
            Err(ReadError::Store(error)) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_field_of_100_megabytes_is_rejected_early() {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    for (begin, code, line) in [
        ("sku,title,image_url\nA-1,\"", "unclosed_quote", 2),
        ("sku,title,image_url\n\nA-1,", "record_too_large", 3),
        ("", "record_too_large", 1),
    ] {
        let read = Arc::new(AtomicUsize::new(0));
        let counter = read.clone();
        let megabyte = Bytes::from(vec![b'x'; 1 << 20]);
        let field = std::iter::repeat_n(megabyte, 100).inspect(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let problem = problem_of(std::iter::once(Bytes::from_static(begin.as_bytes())).chain(field)).await;
        assert_eq!((&*problem.code, problem.line), (code, Some(line)), "{problem}");
        assert!(read.load(Ordering::Relaxed) <= 2, "read {} MB of it", read.load(Ordering::Relaxed));
    }
}

async fn packed(text: impl Iterator<Item = Bytes> + Send + 'static) -> Vec<Bytes> {
    use futures::TryStreamExt as _;
    let text = tokio_util::io::StreamReader::new(stream::iter(text.map(Ok::<_, std::io::Error>)));
    let encoder = async_compression::tokio::bufread::GzipEncoder::new(text);
    tokio_util::io::ReaderStream::new(encoder).try_collect().await.unwrap()
}

#[tokio::test]
async fn a_gzip_bomb_is_rejected_early() {
    let header = Bytes::from_static(b"sku,title,image_url\n");
    let rows = Bytes::from("A-1,Mug,https://cdn.example.com/a.png\n".repeat(10_000));
    let bomb = packed(std::iter::once(header.clone()).chain(std::iter::repeat_n(rows.clone(), 200))).await;
    assert!(bomb.iter().map(Bytes::len).sum::<usize>() < 400_000, "the test data compresses too little");
    let problem = problem_of(bomb.into_iter()).await;
    assert_eq!(problem.code, "gzip_too_large", "{problem}");

    // Without a line end, the limit of a record applies first.
    let zeros = Bytes::from(vec![b'0'; 1 << 20]);
    let bomb = packed(std::iter::once(header.clone()).chain(std::iter::repeat_n(zeros, 100))).await;
    assert_eq!(problem_of(bomb.into_iter()).await.code, "record_too_large");

    // The limit does not apply to a small catalog.
    let small = packed([header, rows].into_iter()).await;
    let found = outcome("small.csv.gz", small, "").await;
    assert_eq!(found["rows"].as_array().map(Vec::len), Some(10_000));
}

#[tokio::test]
async fn records_and_messages_are_limited() {
    let columns = (0..20_000).map(|n| format!("c{n}")).collect::<Vec<_>>().join(",");
    let problem = problem_of(cut(format!("sku,title,image_url,{columns}\n").as_bytes(), 4_096).into_iter()).await;
    assert_eq!((&*problem.code, problem.line), ("record_too_large", Some(1)), "{problem}");

    // This title fits into a record, but its escaped form does not fit into a message.
    let title = "\u{1f45f}\\".repeat(MAX_RECORD_BYTES / 6);
    let text = format!(
        "sku,title,image_url,note\nA-1,{title},https://cdn.example.com/a.png,\nA-2,Mug,https://cdn.example.com/a.png,\n"
    );
    let found = outcome("large.csv", cut(text.as_bytes(), 4_096), "").await;
    assert_eq!((&found["rows"][0]["rejected"], &found["rows"][1]["sku"]), (&json!("row_too_large"), &json!("A-2")));
}

/// Byte sequences that are special to some layer, in any order, mixed with random bytes.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => prop::sample::select(vec![
            &b"sku,title,image_url\n"[..], b"sku;title;image_url\r\n", b"Handle,Title,Image Src,Variant SKU\n", b"ID,Type,SKU,Name,Images\n",
            b"A-1,Mug,https://a.example/x.png\n", b"A-1;Mug;https://a.example/x.png\r\n", b"\"", b"\"\"", b",", b";", b"\t", b"|", b"\n", b"\r",
            b"\r\n", b"sep=;\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"PK\x03\x04", b"\0", b"\x1a",
            b"\xe4", b"\xc3\xa4", b"\xc3", b"\xf0\x9f\x91\x9f", b"\xd8\0", b"\0\xd8", b"s\0k\0u\0,\0", b"'=", b"error_code,error", b"<html>", b"{\"",
        ]).prop_map(<[u8]>::to_vec),
        2 => prop::collection::vec(any::<u8>(), 0..12),
        1 => "[ -~]{0,12}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Any bytes, in chunks of any size: the reader ends without a panic, the outcome does not depend on the chunks, and line numbers
/// increase.
fn check_invariants(bytes: &[u8], chunk: usize) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let whole = runtime.block_on(outcome("any.csv", cut(bytes, bytes.len().max(1)), ""));
    let parts = runtime.block_on(outcome("any.csv", cut(bytes, chunk), ""));
    prop_assert_eq!(&whole, &parts);
    let lines: Vec<u64> =
        whole["rows"].as_array().into_iter().flatten().filter_map(|row| row["line"].as_u64()).collect();
    prop_assert!(lines.is_sorted_by(|a, b| a < b), "{:?}", lines);
    let ends = bytes.iter().filter(|b| matches!(b, b'\n' | b'\r')).count() as u64;
    let last = lines.last().copied().or(whole["not_a_catalog"]["line"].as_u64()).unwrap_or(1);
    // The bytes of a compressed file do not show its lines.
    prop_assert!(last <= ends + 1 || bytes.starts_with(&[0x1f, 0x8b]), "line {} of {}", last, ends + 1);
    Ok(())
}

fn fuzz(cases: u32) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(bytes in pieces(), chunk in 1usize..40)| check_invariants(&bytes, chunk)?);
}

#[test]
fn any_bytes_have_an_outcome() {
    fuzz(2_000);
}

#[test]
#[ignore = "minutes; `cargo test --release -p packshot-tests --test contract a_million -- --ignored`"]
fn a_million_inputs_have_an_outcome() {
    fuzz(1_000_000);
}
