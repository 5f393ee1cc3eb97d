//! The deployed stack, end to end: the unchanged `template.yaml` on a local AWS, the three real executables and the demo API.
//!
//! The scenarios run in order on one stack, because they share the API, its script and the breaker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]
#![allow(
    clippy::print_stdout,
    clippy::large_futures,
    reason = "it prints its results; the scenarios are one large future"
)]

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use aws_sdk_s3::Client as S3;
use aws_sdk_sqs::{
    Client as Sqs,
    types::{MessageSystemAttributeName, MessageSystemAttributeNameForSends, MessageSystemAttributeValue},
};
use packshot_pipeline::model::{notification::Notification, result::RowResult};
use packshot_tests::{
    demo_api::DemoApi,
    schema::{Schema, assert_manifest},
    stack::{Inbox, Stack},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

struct Deployed {
    stack: Stack,
    s3: S3,
    sqs: Sqs,
    api: DemoApi,
}

impl Deployed {
    async fn of_this_run() -> Self {
        Self::on(Stack::of_this_run()).await
    }

    async fn on(stack: Stack) -> Self {
        let config = stack.config().await;
        let s3 = S3::from_conf(aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build());
        let api = DemoApi { url: stack.api_url.clone() };
        Self { sqs: Sqs::new(&config), s3, api, stack }
    }

    /// Uploads a catalog and returns the version of its object.
    async fn drop_catalog(&self, name: &str, body: String) -> String {
        self.drop_file(&format!("{name}.csv"), body.into_bytes()).await
    }

    async fn drop_file(&self, name: &str, body: Vec<u8>) -> String {
        let put = self.s3.put_object().bucket(&self.stack.bucket).key(format!("incoming/{name}"));
        put.body(body.into()).send().await.unwrap().version_id.unwrap()
    }

    async fn read(&self, key: &str) -> Option<String> {
        let object = self.s3.get_object().bucket(&self.stack.bucket).key(key).send().await.ok()?;
        Some(String::from_utf8(object.body.collect().await.unwrap().to_vec()).unwrap())
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let mut pages = self.s3.list_objects_v2().bucket(&self.stack.bucket).prefix(prefix).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            keys.extend(page.unwrap().contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
        }
        keys
    }

    /// Waits until `done` accepts the summary of this version of a catalog. Returns the job's prefix and the summary.
    async fn summary(
        &self,
        name: &str,
        version: &str,
        limit: Duration,
        done: impl Fn(&Value) -> bool,
    ) -> (String, Value) {
        let began = Instant::now();
        let mut last = Value::Null;
        while began.elapsed() < limit {
            for key in self.keys(&format!("manifests/{name}/")).await {
                let Some(prefix) = key.strip_suffix("summary.json") else { continue };
                let Some(text) = self.read(&key).await else { continue };
                let summary: Value = serde_json::from_str(&text).unwrap();
                if summary["source"]["version_id"] == version {
                    if done(&summary) {
                        Schema::Summary.assert(&text);
                        return (prefix.to_owned(), summary);
                    }
                    last = summary;
                }
            }
            sleep(Duration::from_millis(500)).await;
        }
        panic!("{name} has not ended within {limit:?}: {last:#}\nlog: {}", self.stack.log.display());
    }

    async fn ended(&self, name: &str, version: &str, limit: Duration) -> (String, Value) {
        self.summary(name, version, limit, |summary| summary["status"] != "running").await
    }

    async fn manifest(&self, prefix: &str) -> Vec<RowResult> {
        let text = self.read(&format!("{prefix}manifest.jsonl")).await.unwrap();
        assert_manifest(&text);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Reads `job.json` of the job whose manifest is under this prefix.
    async fn job(&self, prefix: &str) -> Value {
        let id = prefix.trim_end_matches('/').rsplit('/').next().unwrap();
        let text = self.read(&format!("results/{id}/job.json")).await.unwrap();
        Schema::Job.assert(&text);
        serde_json::from_str(&text).unwrap()
    }

    async fn waiting(&self, queue: &str) -> usize {
        let attributes = self
            .sqs
            .get_queue_attributes()
            .queue_url(queue)
            .attribute_names(aws_sdk_sqs::types::QueueAttributeName::ApproximateNumberOfMessages)
            .send()
            .await
            .unwrap();
        let count = attributes.attributes.unwrap().into_values().next().unwrap();
        count.parse().unwrap()
    }

    /// Counts a sentence in the functions' log after its first `from` bytes.
    fn logged(&self, from: usize, sentence: &str) -> usize {
        let log = std::fs::read(&self.stack.log).unwrap();
        String::from_utf8_lossy(&log[from..]).matches(sentence).count()
    }

    fn log_since(&self, from: usize) -> String {
        let log = std::fs::read(&self.stack.log).unwrap();
        String::from_utf8_lossy(&log[from..]).into_owned()
    }

    /// The sum of a metric in the functions' log after its first `from` bytes.
    fn metric(&self, from: usize, name: &str) -> f64 {
        let log = self.log_since(from);
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(&line[line.find('{')?..]).ok());
        lines.filter(|line| line["_aws"].is_object()).filter_map(|line| line[name].as_f64()).sum()
    }

    /// Creates a queue that receives the notifications of all jobs from now on.
    async fn subscribe(&self) -> Inbox {
        let sns = aws_sdk_sns::Client::new(&self.stack.config().await);
        let topics = sns.list_topics().send().await.unwrap().topics.unwrap_or_default();
        let arns = topics.into_iter().filter_map(|topic| topic.topic_arn);
        // Tests create other topics, called contract-….
        let ours: Vec<_> = arns.filter(|arn| arn.contains("Notices")).collect();
        let [arn] = ours.as_slice() else { panic!("not exactly one topic for notifications: {ours:?}") };
        self.stack.inbox(arn, None).await
    }

    fn log_length(&self) -> usize {
        usize::try_from(std::fs::metadata(&self.stack.log).unwrap().len()).unwrap()
    }
}

fn catalog(name: &str, rows: usize) -> String {
    // Makes the requests differ from those of earlier runs on the same stack, whose outcomes would be reused.
    let run = std::process::id();
    let row = |n| format!("{name}-{n:05},Product {n},https://cdn.example.com/{name}/{n}.png?run={run},Brand,1\n");
    std::iter::once("sku,title,image_url,brand,n\n".to_owned()).chain((1..=rows).map(row)).collect()
}

fn assert_whole(manifest: &[RowResult], name: &str, rows: usize) {
    assert_eq!(manifest.len(), rows);
    for (result, row) in manifest.iter().zip(1..) {
        let sku = match result {
            RowResult::Completed(completed) => &completed.sku,
            RowResult::Failed(failed) => &failed.sku,
        };
        assert_eq!((result.row(), sku.as_str()), (row, format!("{name}-{row:05}").as_str()));
    }
}

#[tokio::test]
#[ignore = "needs a stack; `make test` starts one and runs this"]
async fn the_deployed_stack() {
    let deployed = Deployed::of_this_run().await;
    let (from, inbox) = (deployed.log_length(), deployed.subscribe().await);
    faults_in_a_tenth_of_first_calls(&deployed).await;
    the_same_catalog_again_makes_no_call(&deployed).await;
    two_at_once_pay_once(&deployed).await;
    a_file_that_is_no_catalog(&deployed).await;
    every_kind_of_name_is_a_trigger(&deployed).await;
    failed_rows_complete_after_a_redrive(&deployed, "redrive-packshot", Redrive::Packshot).await;
    failed_rows_complete_after_a_redrive(&deployed, "redrive-sqs", Redrive::Sqs).await;
    an_unreadable_message_goes_to_the_retry_queue_once(&deployed).await;
    a_thousand_rows(&deployed).await;
    everything_breaks_at_once(&deployed).await;
    a_deployment_with_a_column_map(&deployed).await;
    every_end_was_notified(&deployed, &inbox).await;
    the_key_and_row_data_do_not_leak(&deployed, from).await;
}

/// There was one notification for each end of each job.
async fn every_end_was_notified(deployed: &Deployed, inbox: &Inbox) {
    let mut notified = BTreeMap::<(String, String), usize>::new();
    while let Some(envelope) = inbox.receive().await {
        let notification: Notification = serde_json::from_str(envelope["Message"].as_str().unwrap()).unwrap();
        let summary = deployed.read(&notification.summary).await.unwrap();
        assert!(summary.contains(notification.job.as_str()));
        *notified.entry((notification.catalog.to_string(), notification.status.as_str().to_owned())).or_default() += 1;
    }
    let of = |catalog: &str, status: &str| {
        notified.get(&(catalog.to_owned(), status.to_owned())).copied().unwrap_or_default()
    };
    for (catalog, status, jobs) in [
        ("tenth", "complete", 3),
        ("left", "complete", 1),
        ("right", "complete", 1),
        ("broken/deep ünd+odd", "rejected", 1),
        // The redrive completed one failed row of two, so the status is the same and there is no second notification.
        ("redrive-packshot", "complete_with_failures", 1),
        ("redrive-sqs", "complete_with_failures", 1),
        ("thousand", "complete", 1),
        ("storm", "complete", 1),
    ] {
        assert_eq!(of(catalog, status), jobs, "{catalog} {status}: {notified:#?}");
    }
    println!("{} jobs announced once each", notified.values().sum::<usize>());
}

/// The key is in no log and no object; the data of rows is not in the log.
async fn the_key_and_row_data_do_not_leak(deployed: &Deployed, from: usize) {
    let log = deployed.log_since(from);
    assert!(!log.contains("local-demo-key"), "the API key is in the log");
    for marker in ["Product 1", "cdn.example.com", "hero product photo"] {
        let line = log.lines().find(|line| line.contains(marker));
        assert_eq!(line, None, "row data is in the log");
    }
    let mut objects = 0;
    for key in deployed.keys("").await {
        let object = deployed.s3.get_object().bucket(&deployed.stack.bucket).key(&key).send().await.unwrap();
        let bytes = object.body.collect().await.unwrap().to_vec();
        assert!(!bytes.windows(14).any(|part| part == b"local-demo-key"), "the API key is in {key}");
        objects += 1;
    }
    println!("{} lines of log and {objects} objects without the key, the log without row data", log.lines().count());
}

/// 300 rows; the first call of every tenth row gets a `Retry-After` that is longer than its invocation may wait.
async fn faults_in_a_tenth_of_first_calls(deployed: &Deployed) {
    let from = deployed.log_length();
    let rules: Vec<_> = (10..=300)
        .step_by(10)
        .map(|n| json!({ "match": format!("/{n}.png"), "answers": [{ "status": 500, "headers": { "retry-after": "12" } }] }))
        .collect();
    deployed.api.follow(&json!({ "rules": rules }));
    let before = deployed.api.total();
    let version = deployed.drop_catalog("tenth", catalog("tenth", 300)).await;
    let (prefix, summary) = deployed.ended("tenth", &version, Duration::from_secs(180)).await;
    assert_eq!(summary["status"], "complete", "{summary:#}");
    let manifest = deployed.manifest(&prefix).await;
    assert_whole(&manifest, "tenth", 300);
    let twice: Vec<u64> = manifest
        .iter()
        .filter_map(|result| match result {
            RowResult::Completed(row) if row.attempts == 2 => Some(row.row),
            _ => None,
        })
        .collect();
    assert_eq!(twice, (10..=300).step_by(10).collect::<Vec<_>>());
    assert_eq!(deployed.api.total() - before, 330);
    // Only the messages of these thirty rows were delivered again.
    assert_eq!(deployed.logged(from, "the message comes back later"), 30);
    assert_eq!(deployed.logged(from, "settled before"), 0);
    for (metric, sum) in [
        ("RowsSplit", 300.0),
        ("RowsRejected", 0.0),
        ("Calls", 330.0),
        ("Retries", 30.0),
        ("RowsCompleted", 300.0),
        ("RowsFailed", 0.0),
        ("Images", 300.0),
        ("JobsFinished", 1.0),
    ] {
        assert_eq!(deployed.metric(from, metric), sum, "{metric}");
    }
    deployed.api.follow(&json!({}));
}

async fn the_same_catalog_again_makes_no_call(deployed: &Deployed) {
    let before = deployed.api.total();
    let again = deployed.drop_catalog("tenth", catalog("tenth", 300)).await;
    let (_, summary) = deployed.ended("tenth", &again, Duration::from_secs(120)).await;
    assert_eq!((&summary["completed"], &summary["reused"]), (&json!(300), &json!(300)));
    assert_eq!(deployed.api.total(), before);
    let edited = catalog("tenth", 300).replace("Product 42,", "Product forty-two,");
    let edited = deployed.drop_catalog("tenth", edited).await;
    let (prefix, _) = deployed.ended("tenth", &edited, Duration::from_secs(120)).await;
    assert_eq!(deployed.api.total(), before + 1);
    let latest: Value = serde_json::from_str(&deployed.read("manifests/tenth/latest.json").await.unwrap()).unwrap();
    assert_eq!(latest["manifest"], format!("{prefix}manifest.jsonl"));
}

async fn two_at_once_pay_once(deployed: &Deployed) {
    let before = deployed.api.total();
    let body = catalog("twin", 40);
    let (left, right) =
        tokio::join!(deployed.drop_catalog("left", body.clone()), deployed.drop_catalog("right", body.clone()));
    let limit = Duration::from_secs(120);
    let (left, right) = tokio::join!(deployed.ended("left", &left, limit), deployed.ended("right", &right, limit));
    assert_eq!((&left.1["completed"], &right.1["completed"]), (&json!(40), &json!(40)));
    assert_eq!(deployed.api.total() - before, 40);
}

async fn a_file_that_is_no_catalog(deployed: &Deployed) {
    let version = deployed.drop_catalog("broken/deep ünd+odd", "name,price\nmug,3\n".to_owned()).await;
    let (_, summary) = deployed.ended("broken/deep ünd+odd", &version, Duration::from_secs(60)).await;
    assert_eq!(summary["status"], "rejected");
    assert_eq!(summary["rejected"]["line"], 1);
    assert!(summary["rejected"]["reason"].as_str().unwrap().contains("name, price"));
}

async fn every_kind_of_name_is_a_trigger(deployed: &Deployed) {
    for (name, packed, delimiter) in [
        ("tabbed.tsv", false, "\t"),
        ("packed.csv.gz", true, ","),
        ("CAPITALS.CSV", false, ","),
        ("LOUD.TSV", false, "\t"),
        ("BOTH.CSV.GZ", true, ","),
    ] {
        let catalog_name = name.split_once('.').unwrap().0;
        let body = catalog(catalog_name, 2).replace(',', delimiter).into_bytes();
        let version = deployed.drop_file(name, if packed { gzip(&body).await } else { body }).await;
        let (prefix, summary) = deployed.ended(catalog_name, &version, Duration::from_secs(60)).await;
        assert_eq!(summary["status"], "complete", "{name}: {summary:#}");
        assert_whole(&deployed.manifest(&prefix).await, catalog_name, 2);
        let format = &deployed.job(&prefix).await["format"];
        let compression = if packed { json!("gzip") } else { Value::Null };
        assert_eq!((&format["delimiter"], &format["compression"]), (&json!(delimiter), &compression), "{name}");
    }
}

async fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder = async_compression::tokio::bufread::GzipEncoder::new(text);
    tokio::io::copy(&mut encoder, &mut packed).await.unwrap();
    packed
}

/// A second local AWS, with the demo API and the functions of the first. Stopped when dropped.
struct SecondStack {
    state: TempDir,
}

impl SecondStack {
    fn up(api_url: &str, parameter: &str) -> (Self, Stack) {
        let second = Self { state: TempDir::new().unwrap() };
        let up = second.stack("up").args(["--no-build", "--api-url", api_url, "--param", parameter]).output().unwrap();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        let stack = serde_json::from_slice(&up.stdout).unwrap();
        (second, stack)
    }

    fn stack(&self, what: &str) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../stack"));
        command.arg(what).arg("--state-dir").arg(self.state.path());
        command
    }
}

impl Drop for SecondStack {
    fn drop(&mut self) {
        let _ = self.stack("down").output();
    }
}

async fn a_deployment_with_a_column_map(deployed: &Deployed) {
    let map = "ColumnMap=sku=Artikelnummer; title = Bezeichnung; image_url=Bild";
    let (_second, stack) = SecondStack::up(&deployed.stack.api_url, map);
    let mapped = Deployed::on(stack).await;
    let body = catalog("map", 2).replace("sku,title,image_url", "Artikelnummer,Bezeichnung,Bild");
    let version = mapped.drop_catalog("map", body).await;
    let (prefix, summary) = mapped.ended("map", &version, Duration::from_secs(60)).await;
    assert_eq!(summary["status"], "complete", "{summary:#}");
    assert_whole(&mapped.manifest(&prefix).await, "map", 2);
    let job = mapped.job(&prefix).await;
    assert_eq!(
        (&job["mapping"]["sku"], &job["mapping"]["title"], &job["mapping"]["image_url"]),
        (&json!("Artikelnummer"), &json!("Bezeichnung"), &json!("Bild"))
    );
    // A mapped column that is missing is an error, even if the default name exists.
    let version = mapped.drop_catalog("other", catalog("other", 2)).await;
    let (_, summary) = mapped.ended("other", &version, Duration::from_secs(60)).await;
    assert_eq!(summary["status"], "rejected");
    let reason = summary["rejected"]["reason"].as_str().unwrap();
    assert!(reason.contains("no column `Artikelnummer`, which the column map names for sku"), "{reason}");
}

/// The way of a redrive.
enum Redrive {
    /// `packshot redrive`
    Packshot,
    /// SQS itself, as the console's button does.
    Sqs,
}

async fn failed_rows_complete_after_a_redrive(deployed: &Deployed, name: &str, redrive: Redrive) {
    let retry = &deployed.stack.retry_queue_url;
    // An earlier run may have left messages.
    deployed.sqs.purge_queue().queue_url(retry).send().await.unwrap();
    let blocked = json!({ "status": 400, "json": { "error": { "code": "moderation_blocked" } } });
    deployed.api.follow(&json!({ "rules": [
        { "match": format!("/{name}/3.png"), "answers": [{ "status": 503 }], "then": "repeat" },
        { "match": format!("/{name}/5.png"), "answers": [blocked], "then": "repeat" },
    ]}));
    let version = deployed.drop_catalog(name, catalog(name, 6)).await;
    let limit = Duration::from_secs(120);
    let (prefix, summary) = deployed.ended(name, &version, limit).await;
    assert_eq!((&summary["status"], &summary["failed"]), (&json!("complete_with_failures"), &json!(2)), "{summary:#}");
    assert!(deployed.read(&format!("{prefix}failed.csv")).await.unwrap().contains(&format!("{name}-00005")));
    assert_eq!(deployed.waiting(retry).await, 1);

    deployed.api.follow(&json!({}));
    match redrive {
        Redrive::Packshot => {
            let redriven = Command::new(packshot_tests::packshot())
                .args(["redrive", "--bucket", &deployed.stack.bucket])
                .envs([("AWS_ENDPOINT_URL", deployed.stack.endpoint.as_str()), ("AWS_REGION", "us-east-1")])
                .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&redriven.stdout), "1 rows run again.\n", "{redriven:?}");
        }
        Redrive::Sqs => {
            let wanted = aws_sdk_sqs::types::QueueAttributeName::QueueArn;
            let found =
                deployed.sqs.get_queue_attributes().queue_url(retry).attribute_names(wanted.clone()).send().await;
            let arn = &found.unwrap().attributes.unwrap()[&wanted];
            deployed.sqs.start_message_move_task().source_arn(arn).send().await.unwrap();
        }
    }
    let (_, redriven) = deployed.summary(name, &version, limit, |summary| summary["failed"] == 1).await;
    assert_eq!(redriven["completed"], 5, "{redriven:#}");
    assert_whole(&deployed.manifest(&prefix).await, name, 6);
    assert_eq!(deployed.waiting(retry).await, 0);
}

async fn an_unreadable_message_goes_to_the_retry_queue_once(deployed: &Deployed) {
    let rows = &deployed.stack.rows_queue_url;
    let (from, trace) = (deployed.log_length(), "Root=1-67891233-abcdef012345678912345678;Sampled=1");
    let header = MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build().unwrap();
    let send = deployed.sqs.send_message().queue_url(rows).message_body("{\"not\":\"ours\"}");
    send.message_system_attributes(MessageSystemAttributeNameForSends::AwsTraceHeader, header).send().await.unwrap();
    let retry = &deployed.stack.retry_queue_url;
    let began = Instant::now();
    let parked = loop {
        let received = deployed
            .sqs
            .receive_message()
            .queue_url(retry)
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .wait_time_seconds(1)
            .send()
            .await
            .unwrap();
        if let Some(message) = received.messages.unwrap_or_default().pop() {
            break message;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the message did not reach the retry queue");
    };
    assert_eq!(parked.body.as_deref(), Some("{\"not\":\"ours\"}"));
    // Its X-Ray trace is in the retry queue and in the log.
    assert_eq!(parked.attributes.unwrap()[&MessageSystemAttributeName::AwsTraceHeader], trace);
    assert_eq!(deployed.logged(from, "\"trace_id\":\"1-67891233-abcdef012345678912345678\""), 1);
    let attributes = parked.message_attributes.unwrap();
    assert_eq!(attributes["error_code"].string_value.as_deref(), Some("poison"));
    deployed.sqs.delete_message().queue_url(retry).receipt_handle(parked.receipt_handle.unwrap()).send().await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!((deployed.waiting(rows).await, deployed.waiting(retry).await), (0, 0));
}

async fn a_thousand_rows(deployed: &Deployed) {
    let version = deployed.drop_catalog("thousand", catalog("thousand", 1_001)).await;
    let (prefix, summary) = deployed.ended("thousand", &version, Duration::from_secs(400)).await;
    assert_eq!((&summary["status"], &summary["completed"]), (&json!("complete"), &json!(1_001)));
    assert_whole(&deployed.manifest(&prefix).await, "thousand", 1_001);
    assert_eq!(deployed.keys(&format!("{prefix}parts/")).await.len(), 2);
}

/// Generators are killed during calls, connections are cut, many answers are 429, and the balance is empty for a while.
async fn everything_breaks_at_once(deployed: &Deployed) {
    let storm = |n: usize| match n % 20 {
        1 => json!([{ "cut": "before" }]),
        5 => json!([{ "cut": "headers" }]),
        9 => json!([{ "status": 429, "headers": { "retry-after": "2" } }, { "status": 429 }]),
        13 => json!([{ "status": 500 }, { "status": 503 }]),
        _ => json!([{ "delay_ms": 100 }]),
    };
    let rules: Vec<_> = (1..=500).map(|n| json!({ "match": format!("/storm/{n}.png"), "answers": storm(n) })).collect();
    deployed.api.follow(&json!({ "rules": rules }));
    let billed = || deployed.api.calls()["billed"].as_u64().unwrap();
    let (before, calls) = (billed(), deployed.api.total());
    let version = deployed.drop_catalog("storm", catalog("storm", 500)).await;
    let mut killed = 0;
    for after in [60, 160] {
        while deployed.api.total() - calls < after {
            sleep(Duration::from_millis(5)).await;
        }
        killed += kill_generators(deployed.stack.pid);
    }
    assert!(killed > 0, "no generator was running");
    deployed.api.follow(&json!({ "account": "empty" }));
    sleep(Duration::from_secs(5)).await;
    let during = deployed.api.total();
    sleep(Duration::from_secs(10)).await;
    assert!(deployed.api.total() - during <= 1, "calls go on against an empty balance");
    assert!(deployed.read("control/breaker.json").await.is_some_and(|file| file.contains("\"open\": true")));
    deployed.api.follow(&json!({}));
    let (prefix, summary) = deployed.ended("storm", &version, Duration::from_secs(600)).await;
    assert_eq!(summary["status"], "complete", "{summary:#}");
    assert_whole(&deployed.manifest(&prefix).await, "storm", 500);
    let (billed, unknown) = (billed() - before, summary["unknown_outcomes"].as_u64().unwrap());
    println!(
        "500 rows under fire: {killed} generators killed, {billed} calls billed, {unknown} unknown outcomes counted"
    );
    assert!(unknown > 0);
    assert!(billed <= 500 + unknown, "{billed} billed, {unknown} unknown");
}

/// Kills the generators among the descendants of the local AWS. Returns their number.
fn kill_generators(aws: u32) -> usize {
    let mut parents = BTreeMap::new();
    let mut generators = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(status) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some(parent) = status.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok())
        else {
            continue;
        };
        parents.insert(pid, parent);
        if is_generator(&entry.path()) {
            generators.push(pid);
        }
    }
    let descends = |mut pid: u32| loop {
        match parents.get(&pid) {
            Some(&parent) if parent == aws => return true,
            Some(&parent) if parent > 1 => pid = parent,
            _ => return false,
        }
    };
    generators.retain(|&pid| descends(pid));
    for pid in &generators {
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
    }
    generators.len()
}

fn is_generator(process: &Path) -> bool {
    let Ok(environment) = std::fs::read(process.join("environ")) else { return false };
    environment.split(|&byte| byte == 0).any(|pair| pair.starts_with(b"RETRY_QUEUE_URL="))
}
