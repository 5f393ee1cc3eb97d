//! The command line as a user runs it: the real binary, a directory, and the demo API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use packshot_pipeline::model::result::RowResult;
use packshot_tests::{demo_api::DemoApi, schema::assert_manifest};
use serde_json::Value;
use tempfile::TempDir;

const HEADER: &str = "sku,title,image_url,brand,style_tags\n";
const GOOD: &str = "A-1,Mug,https://cdn.example.com/mug.png,North,studio\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn packshot() -> Command {
    let mut command = Command::new(packshot_tests::packshot());
    command.env_remove("CREATIVEAI_API_KEY").env_remove("PACKSHOT_API_URL").stdin(Stdio::null());
    command
}

/// A temporary directory with a catalog.
struct Workspace {
    dir: TempDir,
}

impl Workspace {
    fn new(catalog: impl AsRef<[u8]>) -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("catalog.csv"), catalog).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, api: Option<&Stub>) -> Command {
        let mut command = packshot();
        command.current_dir(self.dir.path()).args(["run", "catalog.csv"]);
        if let Some(api) = api {
            command.env("PACKSHOT_API_URL", &api.url).env("CREATIVEAI_API_KEY", "sk-test-0123456789");
        }
        command
    }

    fn run(&self, api: Option<&Stub>, arguments: &[&str]) -> Ran {
        Ran::of(self.command(api).args(arguments).output().unwrap())
    }

    /// The only file of this name under `manifests/`.
    fn manifest_file(&self, name: &str) -> String {
        let jobs: Vec<_> = std::fs::read_dir(self.path("out/manifests/catalog"))
            .unwrap()
            .map(|entry| entry.unwrap().path().join(name))
            .filter(|path| path.exists())
            .collect();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        std::fs::read_to_string(&jobs[0]).unwrap()
    }

    fn manifest(&self) -> Vec<RowResult> {
        let text = self.manifest_file("manifest.jsonl");
        assert_manifest(&text);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran =
            Self { status: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) };
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
        ran
    }

    #[track_caller]
    fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }
}

/// `packshot stub-api` as a process.
struct Stub {
    child: Child,
    url: String,
}

impl Stub {
    fn start(script: Option<&Path>) -> Self {
        let mut command = packshot();
        command.args(["stub-api", "--port", "0"]).stdout(Stdio::piped());
        if let Some(script) = script {
            command.arg("--script").arg(script);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{line}");
        Self { child, url }
    }

    fn scripted(script: &Value) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script.to_string()).unwrap();
        Self::start(Some(file.path()))
    }

    fn calls(&self) -> u64 {
        DemoApi { url: self.url.clone() }.total()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rows(count: usize) -> String {
    let row = |n| format!("S-{n:05},Product {n},https://cdn.example.com/{n}.png,Brand,cue\n");
    std::iter::once(HEADER.to_owned()).chain((1..=count).map(row)).collect()
}

#[test]
fn the_sample_catalog_without_a_key_and_then_again() {
    let workspace = Workspace::new(std::fs::read(root().join("events/catalog.csv")).unwrap());
    let first = workspace.run(None, &[]).expect(0);
    assert!(first.out.starts_with("Done. completed=3, failed=0, output="), "{}", first.out);
    assert!(first.err.contains("demo API"), "{}", first.err);
    let manifest = workspace.manifest();
    let skus: Vec<_> = manifest
        .iter()
        .map(|line| match line {
            RowResult::Completed(row) => {
                assert_eq!((row.image_count, row.assets.len(), row.attempts), (4, 4, 1));
                for asset in &row.assets {
                    let bytes = std::fs::read(workspace.path("out").join(&asset.key)).unwrap();
                    assert!(bytes.starts_with(b"\x89PNG"), "{}", asset.key);
                    assert_eq!((bytes.len(), asset.width, asset.height), (asset.bytes, 256, 256));
                }
                row.sku.as_str()
            }
            RowResult::Failed(row) => panic!("{row:?}"),
        })
        .collect();
    assert_eq!(skus, ["SKU-1001", "SKU-1002", "SKU-1003"]);

    let before = workspace.manifest_file("manifest.jsonl");
    workspace.run(None, &[]).expect(0);
    assert_eq!(workspace.manifest_file("manifest.jsonl"), before, "the second run called again");
}

#[test]
fn again_makes_no_call_an_edited_row_makes_one_and_fresh_makes_all() {
    let api = Stub::start(None);
    let workspace = Workspace::new(rows(20));
    workspace.run(Some(&api), &["--n", "1"]).expect(0);
    assert_eq!(api.calls(), 20);
    workspace.run(Some(&api), &["--n", "1"]).expect(0);
    assert_eq!(api.calls(), 20);
    std::fs::write(workspace.path("catalog.csv"), rows(20).replace("Product 7,", "Product seven,")).unwrap();
    workspace.run(Some(&api), &["--n", "1"]).expect(0);
    assert_eq!(api.calls(), 21);
    let fresh = workspace.run(Some(&api), &["--n", "1", "--fresh"]).expect(0);
    assert_eq!(api.calls(), 41);
    // The revision that it prints continues that run.
    let revision = fresh.err.split("--revision ").nth(1).unwrap().split_whitespace().next().unwrap();
    workspace.run(Some(&api), &["--n", "1", "--revision", revision]).expect(0);
    assert_eq!(api.calls(), 41);
}

#[test]
fn options_reach_the_request_and_output_is_written() {
    let workspace = Workspace::new(format!("{HEADER}{GOOD}"));
    let arguments = ["--n", "2", "--model", "m-1", "--size", "512x512", "--output", "mine.jsonl", "--out", "elsewhere"];
    let ran = workspace.run(None, &arguments).expect(0);
    assert!(ran.out.contains("output=mine.jsonl"), "{}", ran.out);
    let line: Value = serde_json::from_str(&std::fs::read_to_string(workspace.path("mine.jsonl")).unwrap()).unwrap();
    assert_eq!(line["image_count"], 2);
    assert_eq!(line["model"], "m-1");
    assert_eq!(line["model_actual"], "openai/m-1");
}

/// The vendor's own importer wrote `vendor-outputs.jsonl` against the same answers.
#[test]
fn the_vendors_fields_are_what_the_vendors_importer_writes() {
    let fixtures = root().join("tests/fixtures/vendor");
    let api = Stub::start(Some(&fixtures.join("answers.json")));
    let workspace = Workspace::new(std::fs::read(fixtures.join("catalog.csv")).unwrap());
    workspace.run(Some(&api), &["--account-errors", "fail", "--no-archive"]).expect(3);
    let ours = workspace.manifest_file("manifest.jsonl");
    let theirs = std::fs::read_to_string(fixtures.join("vendor-outputs.jsonl")).unwrap();
    assert_eq!(ours.lines().count(), theirs.lines().count());
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        // JavaScript puts its own word before an error's text; the vendor's page shows the line without it.
        let theirs = theirs.replace(r#""error":"Error: "#, r#""error":""#);
        let beginning = theirs.strip_suffix('}').unwrap();
        assert!(ours.starts_with(beginning), "\nours:   {ours}\ntheirs: {theirs}");
    }
}

#[test]
fn files_that_cannot_be_a_catalog() {
    let cases: &[(&str, &[u8], &[&str])] = &[
        ("empty", b"", &["empty", "sku,title,image_url"]),
        ("blank lines", b"\n\n\n", &["empty"]),
        ("a column is missing", b"sku,label,image_url\n1,2,3\n", &["line 1", "`title`", "sku, label, image_url"]),
        ("a column twice", b"sku,title,image_url,sku\n", &["line 1", "`sku`", "twice"]),
        ("of two encodings", b"sku,title,image_url\nA,caf\xc3\xa9,x\nB,caf\xe9,x\n", &["line 3", "UTF-8"]),
    ];
    for (name, bytes, words) in cases {
        let workspace = Workspace::new(bytes);
        let ran = workspace.run(None, &[]).expect(1);
        for word in *words {
            assert!(ran.err.contains(word), "{name}: `{word}` is not in: {}", ran.err);
        }
        let summary: Value = serde_json::from_str(&workspace.manifest_file("summary.json")).unwrap();
        assert_eq!(summary["status"], "rejected", "{name}");
        assert!(ran.out.is_empty());
    }
    let workspace = Workspace::new("");
    std::fs::remove_file(workspace.path("catalog.csv")).unwrap();
    assert!(workspace.run(None, &[]).expect(1).err.contains("catalog.csv: No such file"));
    packshot().args(["run"]).output().map(Ran::of).unwrap().expect(2);
    workspace.run(None, &["--n", "5"]).expect(2);
}

#[test]
fn a_file_is_read_as_it_is_and_what_was_recognised_is_printed() {
    // As a German Excel saves it.
    let workspace = Workspace::new(b"Artikel;Titel;Bild\r\n\xc4-1;Fu\xdfball;https://x.test/a.png\r\n");
    assert!(workspace.run(None, &[]).expect(1).err.contains("other names can be mapped"));
    let map = ["--map", "sku=Artikel", "--map", "title=titel", "--map", "image_url=Bild"];
    let ran = workspace.run(None, &[&map[..], &["--n", "1", "--out", "mapped"]].concat()).expect(0);
    for words in ["windows-1252, semicolon-separated", "sku from `Artikel`", "image_url from `Bild`"] {
        assert!(ran.err.contains(words), "`{words}` is not in: {}", ran.err);
    }
    let path = ran.out.trim().rsplit('=').next().unwrap().to_owned();
    let line: Value = serde_json::from_str(&std::fs::read_to_string(workspace.path(&path)).unwrap()).unwrap();
    assert_eq!((&line["sku"], &line["status"]), (&"Ä-1".into(), &"completed".into()));
    assert_eq!(workspace.run(None, &["--map", "colour=Farbe"]).expect(2).out, "");
}

#[test]
fn a_packed_file_keeps_its_name() {
    let workspace = Workspace::new("");
    std::fs::copy(root().join("tests/inputs/packed.csv.gz"), workspace.path("shoes.csv.gz")).unwrap();
    let output =
        packshot().current_dir(workspace.dir.path()).args(["run", "shoes.csv.gz", "--n", "1"]).output().unwrap();
    let ran = Ran::of(output).expect(0);
    assert!(ran.out.contains("completed=3, failed=0, output=out/manifests/shoes/"), "{}", ran.out);
    assert!(workspace.path("out/incoming/shoes.csv.gz").exists());
}

#[test]
fn a_header_alone_is_a_complete_empty_manifest() {
    let workspace = Workspace::new(HEADER);
    assert!(workspace.run(None, &[]).expect(0).out.starts_with("Done. completed=0, failed=0"));
    assert_eq!(workspace.manifest_file("manifest.jsonl"), "");
    assert_eq!(workspace.manifest_file("failed.csv"), "sku,title,image_url,brand,style_tags,error_code,error\n");
    let summary: Value = serde_json::from_str(&workspace.manifest_file("summary.json")).unwrap();
    assert_eq!((&summary["status"], &summary["rows"]), (&"complete".into(), &0.into()));
}

#[test]
fn bad_rows_fail_alone_with_their_line_and_come_back_in_failed_csv() {
    let long = "x".repeat(2_000);
    let cases = [
        ("A,too few", "field_count"),
        ("A,t,https://x.test/a.png,b,s,too many", "field_count"),
        (",t,https://x.test/a.png,b,s", "empty_field"),
        ("B,,https://x.test/a.png,b,s", "empty_field"),
        ("C,t,,b,s", "empty_field"),
        ("D,t,ftp://x.test/a.png,b,s", "invalid_image_url"),
        ("E,t,mug.png,b,s", "invalid_image_url"),
        ("F,t,https://me:secret@x.test/a.png,b,s", "invalid_image_url"),
        ("../../x,t,https://x.test/a.png,b,s", ""),
        ("with spaces / and slashes,t,https://x.test/a.png,b,s", ""),
        ("größe-Ω,t,https://x.test/a.png,b,s", ""),
        (&format!("{long},t,https://x.test/a.png,b,s"), ""),
        ("dup,t,https://x.test/a.png,b,s", ""),
        ("dup,t,https://x.test/a.png,b,s", ""),
        ("dup,other,https://x.test/a.png,b,s", "duplicate_sku"),
    ];
    let catalog: String =
        std::iter::once(HEADER.to_owned()).chain(cases.iter().map(|(row, _)| format!("{row}\n"))).collect();
    let workspace = Workspace::new(&catalog);
    let ran = workspace.run(None, &["--n", "1"]).expect(3);
    assert!(ran.out.starts_with("Done. completed=6, failed=9"), "{}", ran.out);
    let manifest = workspace.manifest();
    assert_eq!(manifest.len(), cases.len());
    let mut shared = 0;
    for ((index, (row, code)), line) in cases.iter().enumerate().zip(&manifest) {
        let number = index as u64 + 1;
        assert_eq!(line.row(), number);
        match line {
            RowResult::Completed(done) => {
                assert_eq!(*code, "", "{row}");
                assert!(row.starts_with(&done.sku));
                shared += u32::from(done.reused);
            }
            RowResult::Failed(failed) => {
                assert_eq!(failed.error_code, *code, "{row}");
                assert_eq!(failed.line, number + 1);
                assert!(failed.error.starts_with(&format!("line {}", failed.line)), "{}", failed.error);
            }
        }
    }
    assert_eq!(shared, 5, "six good rows have the same request: one call");
    let failed = workspace.manifest_file("failed.csv");
    assert_eq!(failed.lines().count(), 1 + 9);
    assert!(failed.contains("E,t,mug.png,b,s,invalid_image_url,"), "{failed}");
    assert!(failed.contains("already has `dup`, with another request"), "{failed}");
    // No SKU has escaped from the directory.
    let strays: Vec<_> =
        std::fs::read_dir(workspace.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(strays.len(), 2, "{strays:?}");
}

#[test]
fn per_row_overrides_and_n_out_of_range() {
    let row = |n: &str| format!("S{n},t,https://x.test/{n}.png,{n}\n");
    let catalog: String = std::iter::once("sku,title,image_url,N\n".to_owned())
        .chain(["1", "4", "", "0", "5", "-1", "two", "1.0"].map(row))
        .collect();
    let workspace = Workspace::new(catalog);
    workspace.run(None, &[]).expect(3);
    let counts: Vec<_> = workspace
        .manifest()
        .iter()
        .map(|line| match line {
            RowResult::Completed(row) => Ok(row.image_count),
            RowResult::Failed(row) => Err(row.error_code.clone()),
        })
        .collect();
    let bad = || Err("invalid_n".to_owned());
    assert_eq!(counts, [Ok(1), Ok(4), Ok(4), bad(), bad(), bad(), bad(), bad()]);
}

#[test]
fn an_api_that_misbehaves_loses_nothing() {
    let script = serde_json::json!({ "rules": [
        { "match": "/1.png", "then": "repeat", "answers": [{ "status": 200, "body": "<html>welcome</html>" }] },
        { "match": "/2.png", "then": "repeat", "answers": [{ "status": 200, "body": "{\"data\": [{\"url\": \"htt" }] },
        { "match": "/3.png", "then": "repeat", "answers": [{ "status": 200, "json": { "id": "x", "data": [] } }] },
        { "match": "/4.png", "then": "repeat", "answers": [{ "no_answer": true }] },
        { "match": "/5.png", "answers": [{ "status": 500, "body": "oops" }, { "cut": "before" }] },
        { "match": "/6.png", "then": "repeat", "answers": [{ "status": 500, "body": "oops" }] },
        { "match": "/7.png", "answers": [{ "images": 1 }] },
    ]});
    let api = Stub::scripted(&script);
    let workspace = Workspace::new(rows(8));
    let ran = workspace.run(Some(&api), &["--timeout", "2", "--concurrency", "8"]).expect(3);
    assert!(ran.out.starts_with("Done. completed=3, failed=5"), "{}{}", ran.out, ran.err);
    let codes: Vec<_> = workspace
        .manifest()
        .into_iter()
        .map(|line| match line {
            RowResult::Completed(row) => format!("{} of 4", row.image_count),
            RowResult::Failed(row) => row.error_code,
        })
        .collect();
    assert_eq!(
        codes,
        ["invalid_answer", "invalid_answer", "no_images", "outcome_unknown", "4 of 4", "http_500", "1 of 4", "4 of 4"]
    );
}

#[test]
fn an_empty_balance_stops_the_run_and_the_next_one_continues() {
    let api = Stub::scripted(&serde_json::json!({ "account": "empty" }));
    let workspace = Workspace::new(rows(30));
    let ran = workspace.run(Some(&api), &["--n", "1"]).expect(4);
    assert!(ran.err.contains("Top up") && ran.err.contains("of 30 valid rows"), "{}", ran.err);
    assert!(api.calls() < 10, "{} calls on an empty balance", api.calls());
    let api = Stub::start(None);
    workspace.run(Some(&api), &["--n", "1"]).expect(0);
    assert_eq!(api.calls(), 30);
}

#[test]
fn a_killed_run_can_be_continued_and_a_second_run_at_once_is_refused() {
    let script = serde_json::json!({ "all": [{ "delay_ms": 400 }] });
    let api = Stub::scripted(&script);
    let workspace = Workspace::new(rows(24));
    let mut first =
        workspace.command(Some(&api)).args(["--n", "1"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while api.calls() < 8 {
        std::thread::yield_now();
    }
    let second = workspace.run(Some(&api), &["--n", "1"]).expect(1);
    assert!(second.err.contains(&format!("process {}", first.id())), "{}", second.err);
    first.kill().unwrap();
    first.wait().unwrap();
    let half = workspace.path("out/.packshot/incomplete/half");
    std::fs::create_dir_all(half.parent().unwrap()).unwrap();
    std::fs::write(&half, "half a result").unwrap();
    let ran = workspace.run(Some(&api), &["--n", "1"]).expect(0);
    assert!(ran.out.starts_with("Done. completed=24, failed=0"), "{}", ran.out);
    assert!(!half.exists(), "the half-written file of the killed run is still there");
    let summary: Value = serde_json::from_str(&workspace.manifest_file("summary.json")).unwrap();
    let unknown = summary["unknown_outcomes"].as_u64().unwrap();
    assert!((1..=6).contains(&unknown), "the calls that the kill cut are unknown outcomes: {unknown}");
    assert!(api.calls() <= 24 + unknown, "{} calls, {unknown} unknown", api.calls());
}

#[cfg(unix)]
#[test]
fn ctrl_c_waits_for_the_calls_in_flight() {
    let api = Stub::scripted(&serde_json::json!({ "all": [{ "delay_ms": 600 }] }));
    let workspace = Workspace::new(rows(24));
    let run =
        workspace.command(Some(&api)).args(["--n", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while api.calls() < 6 {
        std::thread::yield_now();
    }
    let interrupted = Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let ran = Ran::of(run.wait_with_output().unwrap()).expect(130);
    assert!(ran.err.contains("the same command continues"), "{}", ran.err);
    let done = api.calls();
    assert!(done < 24);
    workspace.run(Some(&api), &["--n", "1"]).expect(0);
    assert_eq!(api.calls(), 24, "a call in flight was thrown away");
}

#[test]
fn the_key_is_nowhere() {
    let script = serde_json::json!({ "rules": [
        { "match": "/1.png", "answers": [{ "status": 400, "body": "bad key sk-test-0123456789" }] },
    ]});
    let api = Stub::scripted(&script);
    let workspace = Workspace::new(rows(3));
    let ran = Ran::of(workspace.command(Some(&api)).arg("--verbose").output().unwrap()).expect(3);
    assert!(!format!("{}{}", ran.out, ran.err).contains("0123456789"));
    let grep = Command::new("grep").args(["-r", "0123456789"]).arg(workspace.dir.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "");
}
