//! `check`, `submit`, `status` and `export` as a user types them, and the JSON Schemas of the files that they and a run write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use packshot_tests::{
    demo_api::DemoApi,
    schema::{Schema, assert_manifest},
    stack::Stack,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Four rows are fine, two of them the same; four are rejected, each for its own reason.
const MIXED: &str = "\
sku,title,image_url,brand,n,colour
A,Mug,https://x.test/a.png,North,2,red
A,Mug,https://x.test/a.png,North,2,red
A,Other mug,https://x.test/a.png,North,2,red
,No SKU,https://x.test/b.png,North,,red
D,Ftp,ftp://x.test/d.png,North,,red
E,Nine,https://x.test/e.png,North,9,red
F,Bag,https://x.test/f.png,North,1,red
G,Shoe,https://x.test/g.png,North,,red
";

struct Workspace {
    dir: TempDir,
}

struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Workspace {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn with(name: &str, text: &str) -> Self {
        let workspace = Self::new();
        workspace.write(name, text);
        workspace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        Ran::of(self.command(arguments, environment).output().unwrap())
    }

    fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(packshot_tests::packshot());
        command.env_remove("CREATIVEAI_API_KEY").env_remove("PACKSHOT_API_URL").stdin(Stdio::null());
        command.current_dir(self.dir.path()).args(arguments).envs(environment.iter().copied());
        command
    }

    /// The only file of this name under a directory that has one directory per job.
    fn of_the_job(&self, jobs: &str, name: &str) -> String {
        let jobs: Vec<_> = std::fs::read_dir(self.path(jobs)).unwrap().map(|entry| entry.unwrap().path()).collect();
        let files: Vec<_> = jobs.iter().map(|job| job.join(name)).filter(|path| path.exists()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        std::fs::read_to_string(&files[0]).unwrap()
    }
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let status = output.status.code().unwrap_or(-1);
        let ran = Self { status, out: text(output.stdout), err: text(output.stderr) };
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
        ran
    }

    #[track_caller]
    fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.out.contains(word), "`{word}` is not in: {}", self.out);
        }
        self
    }

    #[track_caller]
    fn warns(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not in: {}", self.err);
        }
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

#[test]
fn the_schemas_are_what_the_types_say() {
    let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
    for schema in Schema::ALL {
        let generated = schema.generate();
        if update {
            std::fs::create_dir_all(schema.path().parent().unwrap()).unwrap();
            std::fs::write(schema.path(), &generated).unwrap();
        }
        let committed = std::fs::read_to_string(schema.path()).unwrap_or_default();
        assert!(
            committed == generated,
            "{} is not what the types say; run UPDATE_SCHEMAS=1 cargo test -p packshot-tests --test commands schemas",
            schema.path().display()
        );
    }
}

#[test]
fn the_schemas_refuse_what_is_not_ours() {
    let good = json!({
        "sku": "A", "status": "failed", "error": "HTTP 402: {}", "row": 1, "job": "0123456789abcdef", "fingerprint": null,
        "attempts": 1, "reused": false, "model": null, "latency_ms": null, "failed_at": "2026-01-02T03:04:05Z",
        "error_code": "insufficient_quota", "error_class": "account", "http_status": 402, "line": 2, "input": { "sku": "A" }
    });
    assert_eq!(Schema::Result.problems(&good), Vec::<String>::new());
    let cases = [
        ("sku", Value::Null),
        ("status", json!("gone")),
        ("job", json!("../../etc/passwd")),
        ("row", json!(-1)),
        ("error_class", json!("misfortune")),
        ("failed_at", json!("yesterday")),
    ];
    for (field, bad) in cases {
        let mut line = good.clone();
        line[field] = bad;
        assert!(!Schema::Result.problems(&line).is_empty(), "{line}");
    }
    let mut line = good;
    line.as_object_mut().unwrap().remove("error");
    assert!(!Schema::Result.problems(&line).is_empty(), "{line}");
}

#[test]
fn check_of_a_clean_file() {
    let workspace = Workspace::new();
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../events/catalog.csv"), workspace.path("c.csv"))
        .unwrap();
    workspace.run(&["check", "c.csv"]).expect(0).says(&[
        "3: 3 fine, 0 rejected",
        "12 to make, with 3 calls",
        "about 2.52 USD",
        "about 20 seconds",
        "A guess",
    ]);
    let ran =
        workspace.run(&["check", "c.csv", "--json", "--n", "1", "--price-per-image", "0.5", "--concurrency", "2"]);
    let ran = ran.expect(0);
    Schema::Check.assert(&ran.out);
    let check = ran.json();
    assert_eq!(check["verdict"], "clean");
    assert_eq!(check["to_make"], json!({ "calls": 3, "images": 3 }));
    assert_eq!((&check["estimate"]["cost_usd"], &check["estimate"]["seconds"]), (&json!(1.5), &json!(40)));
    assert_eq!(check["mapping"]["image_url"], "image_url");
    assert_eq!(check.get("known"), None, "no ledger was looked at");
    assert_eq!(std::fs::read_dir(workspace.dir.path()).unwrap().count(), 1, "check wrote something");
}

#[test]
fn check_of_a_file_that_cannot_be_a_catalog() {
    let workspace = Workspace::with("c.csv", "sku,name\nA,B\n");
    workspace.run(&["check", "c.csv"]).expect(1).says(&["cannot be a catalog", "line 1", "sku, name"]);
    let ran = workspace.run(&["check", "c.csv", "--json"]).expect(1);
    Schema::Check.assert(&ran.out);
    assert_eq!((&ran.json()["verdict"], &ran.json()["problem"]["line"]), (&json!("not_a_catalog"), &json!(1)));
    workspace.run(&["check", "none.csv"]).expect(1).warns(&["none.csv: No such file"]);
    workspace.write("c.pdf", "sku,title,image_url\n");
    workspace.run(&["check", "c.pdf"]).expect(1).says(&["rename the file"]);
}

/// `check` says before the run what the run says afterwards, row by row and word by word.
#[test]
fn check_and_the_splitter_say_the_same() {
    let workspace = Workspace::with("mixed.csv", MIXED);
    let check = workspace.run(&["check", "mixed.csv", "--json", "--n", "3"]).expect(3);
    Schema::Check.assert(&check.out);
    let check = check.json();
    assert_eq!((&check["verdict"], &check["repeated"], &check["images"]), (&json!("rejects"), &json!(1), &json!(8)));
    assert_eq!(check["to_make"], json!({ "calls": 3, "images": 6 }));

    workspace.run(&["run", "mixed.csv", "--n", "3"]).expect(3);
    let job = workspace.of_the_job("out/results", "job.json");
    Schema::Job.assert(&job);
    let job: Value = serde_json::from_str(&job).unwrap();
    for field in ["rows", "valid", "rejected", "images", "columns", "mapping", "format", "export", "continuation_rows"]
    {
        assert_eq!(check[field], job[field], "{field}");
    }
    let manifest = workspace.of_the_job("out/manifests/mixed", "manifest.jsonl");
    assert_manifest(&manifest);
    let mut failed: Vec<_> = manifest
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["status"] == "failed")
        .map(|line| json!({ "row": line["row"], "line": line["line"], "sku": line["sku"], "message": line["error"] }))
        .collect();
    let mut foretold: Vec<_> = check["rejects"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["first"].as_array().unwrap())
        .cloned()
        .collect();
    failed.sort_by_key(|line| line["row"].as_u64());
    foretold.sort_by_key(|line| line["row"].as_u64());
    assert_eq!((foretold.len(), foretold), (4, failed));
    Schema::Summary.assert(&workspace.of_the_job("out/manifests/mixed", "summary.json"));

    // The ledger has outcomes now, but only for requests with the same options.
    let again = workspace.run(&["check", "mixed.csv", "--json", "--n", "3"]).expect(3).json();
    assert_eq!(again["known"], json!({ "calls": 3, "images": 6 }));
    assert_eq!((&again["to_make"], &again["estimate"]["cost_usd"]), (&json!({ "calls": 0, "images": 0 }), &json!(0.0)));
    let other = workspace.run(&["check", "mixed.csv", "--json", "--n", "4"]).expect(3).json();
    assert_eq!((&other["known"]["calls"], &other["to_make"]["calls"]), (&json!(2), &json!(1)));
    // With a key, the demo API's images are not reused.
    let paid = workspace
        .run_with(&["check", "mixed.csv", "--json", "--n", "3"], &[("CREATIVEAI_API_KEY", "sk-test-0123456789")]);
    let paid = paid.expect(3);
    assert_eq!(paid.json()["known"]["calls"], 0);
    assert!(!paid.out.contains("sk-test"));
}

#[test]
fn of_many_rejected_rows_twenty_are_shown_and_of_each_reason_one() {
    let bad = "A,,https://x.test/a.png\n".repeat(30);
    let workspace = Workspace::with("c.csv", &format!("sku,title,image_url\n{bad}B,Bag,ftp://x.test\n"));
    let check = workspace.run(&["check", "c.csv", "--json"]).expect(3).json();
    let shown = |group: usize| check["rejects"][group]["first"].as_array().unwrap().len();
    assert_eq!((&check["rejects"][0]["count"], shown(0)), (&json!(30), 20));
    assert_eq!((&check["rejects"][1]["code"], shown(1)), (&json!("invalid_image_url"), 1));
    workspace.run(&["check", "c.csv"]).expect(3).says(&[
        "30 × empty_field",
        "line 2, column title",
        "… and 10 more",
        "line 32",
    ]);
}

#[test]
fn status_of_a_directory() {
    let workspace = Workspace::with("mixed.csv", MIXED);
    workspace.run(&["status"]).expect(0).says(&["No job yet in out."]);
    workspace.run(&["run", "mixed.csv"]).expect(3);
    // Paid for already.
    workspace.write("fine.csv", "sku,title,image_url,brand,n\nF,Bag,https://x.test/f.png,North,1\n");
    workspace.run(&["run", "fine.csv"]).expect(0);
    workspace.write("broken.csv", "sku\n");
    workspace.run(&["run", "broken.csv"]).expect(1);

    let listed = workspace.run(&["status", "--json"]).expect(0).json();
    let jobs = listed["jobs"].as_array().unwrap();
    for job in jobs {
        Schema::Summary.assert(&job.to_string());
    }
    let seen: Vec<_> =
        jobs.iter().map(|job| (job["catalog"].as_str().unwrap(), job["status"].as_str().unwrap())).collect();
    assert_eq!(
        seen,
        [("broken", "rejected"), ("fine", "complete"), ("mixed", "complete_with_failures")],
        "newest first"
    );
    let (began, ended) = (jobs[1]["created_at"].as_str().unwrap(), jobs[1]["finished_at"].as_str().unwrap());
    assert_eq!(jobs[1]["reused"], 1);
    assert!(ended >= began, "ended at {ended}, before it began at {began}");
    let table = workspace.run(&["status"]).expect(0);
    assert_eq!(table.out.lines().count(), 4);
    let cells: Vec<_> = table.out.lines().nth(3).unwrap().split_whitespace().skip(2).collect();
    let mixed = jobs[2]["job"].as_str().unwrap();
    assert_eq!(cells, ["mixed", mixed, "complete_with_failures", "8", "4", "4"]);

    workspace.run(&["status", &mixed[..6]]).expect(0).says(&[
        mixed,
        "8: 4 completed, 4 failed, 4 of these without a call",
        "1 × duplicate_sku, for example line 4",
        "manifest.jsonl",
    ]);
    workspace.run(&["status", jobs[0]["job"].as_str().unwrap()]).expect(0).says(&[
        "rejected",
        "line 1",
        "No call was made",
    ]);
    // Read by the splitter, and nothing merged yet.
    std::fs::remove_dir_all(workspace.path(&format!("out/manifests/mixed/{mixed}"))).unwrap();
    workspace.run(&["status", mixed]).expect(0).says(&["mixed", "running", "8 of 8 rows, 4 failed"]);
    workspace.run(&["status", "zz"]).expect(1).warns(&["`zz`", "no job in out"]);
    workspace.run(&["status", ""]).expect(1).warns(&["more than one job"]);
}

/// Two completed rows of which one looks like a formula, one failed, one that repeats a SKU, and one without addresses.
fn manifest() -> String {
    let completed = |row: u64, sku: &str, urls: &[&str], asset: &str| {
        json!({
            "sku": sku, "status": "completed", "image_count": urls.len().max(1), "image_urls": urls, "request_id": "gen_1",
            "model_actual": "openai/gpt-image-1", "row": row, "job": "0123456789abcdef", "fingerprint": "0".repeat(64),
            "attempts": 1, "reused": false, "model": "gpt-image-1", "latency_ms": 5, "completed_at": "2026-01-02T03:04:05Z",
            "image_url": "https://x.test/source.png",
            "assets": [{ "n": 1, "key": asset, "content_type": "image/png", "bytes": 1, "sha256": "0".repeat(64), "width": 1, "height": 1 }]
        })
    };
    let failed = json!({
        "sku": "F-1", "status": "failed", "error": "HTTP 402: {}", "row": 3, "job": "0123456789abcdef", "fingerprint": null,
        "attempts": 1, "reused": false, "model": null, "latency_ms": null, "failed_at": "2026-01-02T03:04:05Z",
        "error_code": "insufficient_quota", "error_class": "account", "http_status": 402, "line": 4, "input": { "sku": "F-1" }
    });
    [
        completed(
            1,
            "Mug 1",
            &["https://i.test/1.png?a=1,2", "https://i.test/2.png?a=1,2"],
            "images/c/Mug%201/Mug%201_1.png",
        ),
        completed(2, "=HYPERLINK(\"x\")", &["https://i.test/3.png"], "images/c/H/H_1.png"),
        failed,
        completed(4, "Mug 1", &["https://i.test/1.png?a=1,2"], "images/c/Mug%201/Mug%201_1.png"),
        completed(5, "mug-1", &[], "images/c/mug-1/mug-1_1.png"),
    ]
    .map(|line| format!("{line}\n"))
    .concat()
}

/// The records of an export, read as the other system reads them.
fn records(text: &str, delimiter: u8) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).delimiter(delimiter).from_reader(text.as_bytes());
    reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[test]
fn exports_for_each_system() {
    let workspace = Workspace::with("m.jsonl", &manifest());
    assert_manifest(&manifest());
    let (one, two, three) = ("https://i.test/1.png?a=1,2", "https://i.test/2.png?a=1,2", "https://i.test/3.png");
    let formula = "'=HYPERLINK(\"x\")";
    let said = [
        "2 products with 3 images",
        "1 failed rows are left out",
        "1 rows are left out: their SKU",
        "--base-url",
        "1 SKUs start like a spreadsheet formula",
    ];

    let shopify = workspace.run(&["export", "m.jsonl", "--to", "shopify"]).expect(0).warns(&said);
    assert_eq!(
        records(&shopify.out, b','),
        [
            ["Handle", "Image Src", "Image Position", "Image Alt Text"],
            ["mug-1", one, "1", "Mug 1"],
            ["mug-1", two, "2", "Mug 1"],
            ["hyperlink-x", three, "1", formula],
        ]
    );
    let akeneo = workspace.run(&["export", "m.jsonl", "--to", "akeneo"]).expect(0);
    assert_eq!(
        records(&akeneo.out, b';'),
        [
            ["sku", "image_1", "image_2", "image_3", "image_4"],
            ["Mug 1", one, two, "", ""],
            [formula, three, "", "", ""]
        ]
    );
    let google = workspace.run(&["export", "m.jsonl", "--to", "google"]).expect(0);
    assert_eq!(
        records(&google.out, b'\t'),
        [
            ["id", "image_link", "additional_image_link"],
            ["Mug 1", one, "https://i.test/2.png?a=1%2C2"],
            [formula, three, ""]
        ]
    );
    workspace.run(&["export", "m.jsonl", "--to", "csv", "--output", "flat.csv"]).expect(0);
    let flat = records(&workspace.read("flat.csv"), b',');
    assert_eq!(flat[0][..3], ["sku", "image_count", "image_1"]);
    assert_eq!(flat[1], ["Mug 1", "2", one, two, "", "", "gen_1", "openai/gpt-image-1", "2026-01-02T03:04:05Z"]);
    assert_eq!(flat.len(), 3);
}

#[test]
fn an_export_links_to_the_stored_images() {
    let workspace = Workspace::with("m.jsonl", &manifest());
    let arguments = ["export", "m.jsonl", "--to", "shopify", "--base-url", "https://cdn.test/"];
    let ran = workspace.run(&arguments).expect(0).warns(&["3 products with 3 images", "1 SKUs make the same handle"]);
    let lines = records(&ran.out, b',');
    assert_eq!(lines[1][1], "https://cdn.test/images/c/Mug%25201/Mug%25201_1.png");
    assert_eq!(lines[3], ["mug-1", "https://cdn.test/images/c/mug-1/mug-1_1.png", "1", "mug-1"]);
}

#[test]
fn an_export_of_something_else_names_the_line_and_leaves_nothing_behind() {
    let workspace = Workspace::with("m.jsonl", &format!("{}{{\"half\":\n", manifest()));
    workspace.run(&["export", "m.jsonl", "--to", "csv", "--output", "x.csv"]).expect(1).warns(&["m.jsonl, line 6"]);
    assert_eq!(std::fs::read_dir(workspace.dir.path()).unwrap().count(), 1);
    workspace.run(&["export", "none.jsonl", "--to", "csv"]).expect(1).warns(&["none.jsonl: No such file"]);
    workspace.run(&["export", "m.jsonl", "--to", "magento"]).expect(2);
}

/// `packshot check shoes.csv | head -1`: a pipe whose reader is gone ends the output and changes no exit status.
#[test]
fn a_closed_pipe_ends_the_output_and_not_the_command() {
    let workspace = Workspace::with("mixed.csv", MIXED);
    workspace.write("m.jsonl", &manifest());
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let commands: [(&[&str], i32); 5] = [
        (&["run", "mixed.csv"], 3),
        (&["check", "mixed.csv"], 3),
        (&["status", "--json"], 0),
        (&["export", "m.jsonl", "--to", "csv"], 0),
        (&["check", "--help"], 0),
    ];
    for (arguments, status) in commands {
        let output = workspace.command(arguments, &[]).stdout(closed()).stderr(Stdio::piped()).output().unwrap();
        let ran = Ran::of(output).expect(status);
        assert!(!ran.err.contains("error:"), "{arguments:?}: {}", ran.err);
        let output = workspace.command(arguments, &[]).stdout(Stdio::piped()).stderr(closed()).output().unwrap();
        Ran::of(output).expect(status);
    }
    workspace.of_the_job("out/manifests/mixed", "manifest.jsonl");
}

#[test]
fn every_help_has_an_example() {
    let workspace = Workspace::new();
    for command in ["run", "check", "submit", "status", "redrive", "review", "export", "stub-api"] {
        let example = format!("\n  packshot {command} ");
        workspace.run(&[command, "--help"]).expect(0).says(&["Examples:", &example]);
    }
}

#[test]
#[ignore = "needs a stack; `make test` starts one and runs this"]
fn a_catalog_goes_to_the_stack_and_comes_back() {
    let stack = Stack::of_this_run();
    DemoApi { url: stack.api_url.clone() }.follow(&json!({}));
    let aws = [
        ("AWS_ENDPOINT_URL", stack.endpoint.as_str()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let workspace = Workspace::new();
    // Makes the requests different from those of earlier runs on the same stack, whose outcomes would be reused.
    let run = std::process::id();
    let rows: String =
        (1..=40).map(|n| format!("S-{n},Bag {n},https://x.test/{n}.png?run={run},North,1,red\n")).collect();
    let mixed = MIXED.replace(".png", &format!(".png?run={run}"));
    workspace.write("laptop.csv", &format!("{mixed}{rows}"));
    let bucket = ["--bucket", stack.bucket.as_str()];
    let packshot = |arguments: &[&str]| workspace.run_with(&[arguments, &bucket].concat(), &aws);

    let before = packshot(&["check", "laptop.csv", "--json"]).expect(3).json();
    assert_eq!((&before["known"]["calls"], &before["to_make"]["calls"]), (&json!(0), &json!(43)));

    let ran = packshot(&["submit", "laptop.csv", "--wait"]).expect(3);
    let ran = ran.warns(&["48 rows", "empty_field", "Uploaded as s3://", "failed.csv"]);
    assert_eq!(ran.out, "Done. completed=44, failed=4, output=laptop-manifest.jsonl\n");
    let manifest = workspace.read("laptop-manifest.jsonl");
    assert_manifest(&manifest);
    let in_order = manifest.lines().zip(1..).all(|(line, row)| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["row"] == row
    });
    assert!(in_order && manifest.lines().count() == 48, "{manifest}");

    let after = packshot(&["check", "laptop.csv", "--json"]).expect(3).json();
    assert_eq!((&after["known"]["calls"], &after["to_make"]["calls"]), (&json!(43), &json!(0)));

    // The same file again costs nothing and is another job.
    let job = packshot(&["submit", "laptop.csv"]).expect(0).out.trim().to_owned();
    let status = loop {
        let status = packshot(&["status", "--json"]).expect(0).json();
        let found = status["jobs"].as_array().unwrap().iter().find(|listed| listed["job"] == job).cloned();
        if let Some(found) = found.filter(|found| found["status"] != "running") {
            break found;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(500));
    };
    Schema::Summary.assert(&status.to_string());
    assert_eq!((&status["completed"], &status["calls"], &status["reused"]), (&json!(44), &json!(0), &json!(44)));
    packshot(&["status", &job]).expect(0).says(&["laptop", "48: 44 completed, 4 failed"]);

    workspace.write("broken.csv", "sku,name\n");
    packshot(&["submit", "broken.csv", "--wait"]).expect(1).warns(&["was not uploaded", "line 1"]);
    packshot(&["submit", "laptop.csv", "--wait", "--output", "no/such/m.jsonl"])
        .expect(1)
        .warns(&["nothing was uploaded"]);
    let jobs = packshot(&["status", "--json"]).expect(0).json();
    assert!(jobs["jobs"].as_array().unwrap().iter().all(|job| job["catalog"] != "broken"));
    workspace.run_with(&["status", "--bucket", "no-such-bucket"], &aws).expect(1).warns(&["NoSuchBucket"]);
}
