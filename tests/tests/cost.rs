//! docs/cost.md: its tables are what `cost` computes, and what `cost` counts is what the simulation sees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

use std::{fmt::Write as _, path::Path};

use packshot_pipeline::cost::{
    Deployment, Requests, Work, elsewhere, generator_requests, merger_requests, splitter_requests,
};
use packshot_simulation::{Plan, Stats, run_plan};

const SECONDS: f64 = 20.0;

/// What S3 would have charged for.
fn requests(stats: &Stats, of: &str) -> Requests {
    let sum = |kinds: &[&str]| {
        let counted = stats.calls.iter().filter(|((who, what, _), _)| *who == of && kinds.contains(what));
        counted.map(|(_, count)| *count as f64).sum()
    };
    Requests { reads: sum(&["open", "head"]), writes: sum(&["put", "put_stream", "list"]) }
}

fn ran(rows: u64, archive: bool) -> Stats {
    let outcome = run_plan(Plan::calm(rows, archive), false);
    assert_eq!(outcome.broken, None);
    outcome.stats
}

#[test]
fn the_requests_are_those_that_the_code_makes() {
    for (rows, archive) in [(4_500, false), (10_000, true)] {
        let stats = ran(rows, archive);
        let work = Work::of(rows, SECONDS);
        assert_eq!(requests(&stats, "splitter"), splitter_requests(&work));
        assert_eq!(requests(&stats, "generator"), generator_requests(&work, archive, 50));
        // Each invocation of the merger lists the part that changed, rarely two. What it does beyond depends on who is first.
        let merges = stats.calls[&("merger", "list", "results/")];
        let (seen, reckoned) = (requests(&stats, "merger"), merger_requests(&work, merges as f64));
        println!("{rows} rows, {merges} merges: {seen:?}, reckoned {reckoned:?}");
        for (seen, reckoned) in [(seen.reads, reckoned.reads), (seen.writes, reckoned.writes)] {
            assert!((0.8..=1.2).contains(&(reckoned / seen)), "{seen} requests of the merger, {reckoned} reckoned");
        }
    }
}

/// Whoever compares batches with one message per invocation and with a distributed map finds these: one million rows of 20 s on
/// arm64 with 128 MB, the waiting alone.
#[test]
fn the_prices_give_what_is_known_elsewhere() {
    let work = Work::of(1_000_000, SECONDS);
    let near = |ours: f64, known: f64| assert!((ours / known - 1.0).abs() < 0.02, "{ours} USD, known is {known}");
    near(elsewhere::map_of_express(&small(1), &work), 80.0);
    near(elsewhere::map_of_standard(&small(1), &work), 84.0);
    near(elsewhere::queue(&small(1), &work), 34.0);
    near(elsewhere::queue(&small(10), &work), 3.50);
    near(elsewhere::queue(&small(50), &work), 0.80);
    near(elsewhere::queue(&small(100), &work), 0.46);
    near(elsewhere::object_per_row(work.rows), 5.4);
}

fn small(batch: u32) -> Deployment {
    Deployment { arm: true, generator_mb: 128, batch, generators: 2, ..Deployment::default() }
}

/// What docs/scale.md proposes for many rows.
fn large() -> Deployment {
    Deployment { arm: true, generator_mb: 512, batch: 50, generators: 12, ..Deployment::default() }
}

#[test]
fn the_defaults_are_the_templates() {
    let template = std::fs::read_to_string(root().join("template.yaml")).unwrap();
    let default = |parameter: &str| {
        let block = template.split_once(&format!("\n  {parameter}:\n")).unwrap_or_else(|| panic!("no {parameter}")).1;
        let value = block.split_once("Default: ").unwrap().1.lines().next().unwrap();
        value.trim_matches('"').to_owned()
    };
    let number = |parameter: &str| default(parameter).parse::<u32>().unwrap();
    let ours = Deployment {
        arm: default("Architecture") == "arm64",
        generator_mb: number("GeneratorMemory"),
        splitter_mb: number("SplitterMemory"),
        merger_mb: number("MergerMemory"),
        batch: number("GeneratorBatchSize"),
        generators: number("GeneratorMaxConcurrency"),
        merge_batch: number("MergeBatchSize"),
        merge_window: number("MergeBatchingWindowSeconds"),
        archive: default("ArchiveImages") == "true",
    };
    assert_eq!(ours, Deployment::default());
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn usd(amount: f64) -> String {
    match amount {
        _ if amount < 0.995 => format!("{amount:.2}"),
        _ if amount < 99.5 => format!("{amount:.1}"),
        _ => format!("{amount:.0}"),
    }
}

fn thousands(number: u64) -> String {
    match number {
        1_000_000.. => format!("{}M", number / 1_000_000),
        _ => format!("{}k", number / 1_000),
    }
}

fn time(seconds: f64) -> String {
    match seconds / 3_600.0 {
        hours if hours < 1.0 => format!("{:.0} min", seconds / 60.0),
        hours if hours < 48.0 => format!("{hours:.1} h"),
        hours => format!("{:.0} days", hours / 24.0),
    }
}

/// A Markdown table.
fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), " --- |".repeat(head.len()));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    text
}

fn by_size(deployment: Deployment) -> String {
    let head = [
        "rows",
        "takes",
        "Lambda",
        "SQS",
        "S3 requests",
        "logs, metrics, traces",
        "together",
        "kept, a month",
        "the API",
    ];
    let sizes = [1_000, 100_000, 1_000_000, 10_000_000];
    table(
        &head,
        sizes.map(|rows| {
            let work = Work::of(rows, SECONDS);
            let cost = deployment.cost(&work);
            let money = [
                cost.lambda_usd,
                cost.sqs_usd,
                cost.s3_usd,
                cost.watching_usd,
                cost.total_usd,
                cost.storage_usd_per_month,
            ];
            let api = work.images as f64 * 0.21;
            let cells = [thousands(rows), time(deployment.seconds(&work))].into_iter();
            cells.chain(money.map(usd)).chain([usd(api)]).collect()
        }),
    )
}

fn by_stage() -> String {
    let rows = 1_000_000;
    let work = Work::of(rows, SECONDS);
    let merges = Deployment::default().merges(&work);
    let stages = [
        ("splitter", splitter_requests(&work)),
        ("generator, images kept", generator_requests(&work, true, Deployment::default().batch)),
        ("generator, without", generator_requests(&work, false, Deployment::default().batch)),
        ("merger, at the defaults", merger_requests(&work, merges)),
        ("merger, 600 calls at once", merger_requests(&work, large().merges(&work))),
    ];
    table(
        &["1M rows", "GET, HEAD", "PUT, LIST", "USD"],
        stages.map(|(name, requests)| {
            let each = |count: f64| format!("{:.3} a row", count / rows as f64);
            vec![name.to_owned(), each(requests.reads), each(requests.writes), usd(requests.usd())]
        }),
    )
}

fn by_batch() -> String {
    let memories = [128, 256, 512, 1_024];
    let head = ["rows per invocation", "128 MB", "256 MB", "512 MB", "1024 MB"];
    table(
        &head,
        [1, 3, 10, 50, 100].map(|batch| {
            let of = |generator_mb| {
                let deployment = Deployment { batch, generator_mb, ..Deployment::default() };
                let work = Work::of(1_000_000, SECONDS);
                format!("{} ({:.1} s)", usd(deployment.generator_usd(&work)), deployment.generator_seconds(&work))
            };
            std::iter::once(batch.to_string()).chain(memories.map(of)).collect()
        }),
    )
}

fn others() -> String {
    let work = Work::of(1_000_000, SECONDS);
    let ways = [
        ("distributed map, standard child workflows", elsewhere::map_of_standard(&small(1), &work)),
        ("distributed map, express child workflows", elsewhere::map_of_express(&small(1), &work)),
        ("queue, one row per invocation", elsewhere::queue(&small(1), &work)),
        ("queue, 3", elsewhere::queue(&small(3), &work)),
        ("queue, 10", elsewhere::queue(&small(10), &work)),
        ("queue, 50", elsewhere::queue(&small(50), &work)),
        ("queue, 100", elsewhere::queue(&small(100), &work)),
        ("and for one object per row", elsewhere::object_per_row(work.rows)),
    ];
    table(&["1M rows", "USD"], ways.map(|(name, amount)| vec![name.to_owned(), format!("{amount:.2}")]))
}

/// Between its two marks stands each table as the code computes it now.
#[test]
fn the_page_says_what_the_code_computes() {
    let path = root().join("docs/cost.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mut expected = page.clone();
    let tables = [
        ("stages", by_stage()),
        ("defaults", by_size(Deployment::default())),
        ("large", by_size(large())),
        ("batches", by_batch()),
        ("elsewhere", others()),
    ];
    for (name, table) in tables {
        let begin = format!("<!-- {name}: computed -->\n");
        let (before, rest) = expected.split_once(&begin).unwrap_or_else(|| panic!("no table {name}"));
        let after = rest.split_once("<!-- end -->").expect("no end").1;
        expected = format!("{before}{begin}{table}<!-- end -->{after}");
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(page == expected, "run UPDATE_DOCS=1 cargo test -p packshot-tests --test cost; the tables are\n{expected}");
}
