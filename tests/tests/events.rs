//! The files in `events/`, which `cargo lambda invoke NAME --data-file events/…` sends: parsed by the code of the functions, and sent
//! to the real functions under `cargo lambda watch`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]
#![allow(clippy::disallowed_methods, reason = "it waits for other processes")]

use std::{
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use aws_lambda_events::sqs::SqsEvent;
use packshot_aws::events::{MergerEvent, S3Notification, batch_response, changes, deliveries};
use packshot_pipeline::model::message::RowMessage;
use packshot_tests::stack::Stack;
use serde_json::Value;

fn event(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../events/{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn queue_event(name: &str) -> SqsEvent {
    serde_json::from_str(&event(name)).unwrap()
}

#[test]
fn events_of_the_splitter() {
    for (name, keys) in [
        ("splitter-put", vec!["incoming/catalog.csv"]),
        ("splitter-put-encoded-key", vec!["incoming/frühling 2026/schuhe & taschen +10%.csv"]),
        ("splitter-test-event", vec![]),
    ] {
        let notification: S3Notification = serde_json::from_str(&event(name)).unwrap();
        let splits = notification.split_inputs().unwrap();
        assert_eq!(splits.iter().map(|split| split.key.as_str()).collect::<Vec<_>>(), keys, "{name}");
    }
}

#[test]
fn events_of_the_generator() {
    for (name, rows) in [
        ("generator-batch", vec![Some(1), Some(2), Some(3)]),
        ("generator-mixed", vec![Some(1), None, Some(3)]),
        ("generator-poison", vec![None]),
        ("generator-duplicate", vec![Some(1), Some(1)]),
    ] {
        let read = deliveries(queue_event(name));
        let found: Vec<_> =
            read.iter().map(|delivery| RowMessage::decode(&delivery.body).ok().map(|m| m.row)).collect();
        assert_eq!(found, rows, "{name}");
        assert!(read.iter().all(|delivery| !delivery.id.is_empty() && !delivery.receipt.is_empty()));
    }
    let answer = serde_json::to_value(batch_response(["b".to_owned(), String::new(), "a".to_owned()])).unwrap();
    assert_eq!(answer.to_string(), r#"{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"b"}]}"#);
}

#[test]
fn events_of_the_merger() {
    let read = changes(queue_event("merger-batch"));
    assert!(read.poison.is_empty());
    assert!(read.batch.iter().all(|changed| changed.keys.iter().all(|key| key.starts_with("results/"))));
    assert!(read.batch.iter().any(|changed| !changed.keys.is_empty()));
    let test = changes(queue_event("merger-test-event"));
    assert_eq!((test.poison.len(), test.batch.len(), test.batch[0].keys.len()), (0, 1, 0));
    for (name, messages) in [("merger-batch", Some(3)), ("merger-test-event", Some(1)), ("merger-schedule", None)] {
        let found = match serde_json::from_str(&event(name)).unwrap() {
            MergerEvent::Batch(batch) => Some(batch.records.len()),
            MergerEvent::Schedule => None,
        };
        assert_eq!(found, messages, "{name}");
    }
}

/// `cargo lambda watch` for one function, with its child processes.
struct Watch {
    child: Child,
    port: String,
    /// Keeps the file until the function has read it at its start.
    _variables: tempfile::NamedTempFile,
}

impl Watch {
    /// Starts a function with the variables that `./stack env` prints, as the documents say.
    fn start(function: &str, stack: &Stack) -> Self {
        let variables = tempfile::NamedTempFile::new().unwrap();
        let mut env = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../stack"));
        env.args(["env", function, "--format", "dotenv", "--state-dir"]).arg(stack.state_dir());
        assert!(env.stdout(variables.reopen().unwrap()).status().unwrap().success());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let manifest = format!("functions/{function}/Cargo.toml");
        let child = Command::new("cargo")
            .args(["lambda", "watch", "--ignore-changes", "--timeout", "900", "--invoke-address", "127.0.0.1"])
            .args(["--invoke-port", &port, "--manifest-path", &manifest, "--env-file"])
            .arg(variables.path())
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            // The cargo that runs this test sets this; it would change the build of the functions.
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, port, _variables: variables }
    }

    /// Invokes the function. The first call also builds it. If the function cannot start, `invoke` never returns, hence `timeout`.
    fn invoke(&self, function: &str, name: &str) -> Value {
        let data = format!("events/{name}.json");
        for _ in 0..60 {
            let Output { status, stdout, stderr } = Command::new("timeout")
                .args([
                    "900",
                    "cargo",
                    "lambda",
                    "invoke",
                    "--invoke-address",
                    "127.0.0.1",
                    "--invoke-port",
                    &self.port,
                ])
                .args([function, "--data-file", &data])
                .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&stderr);
            if said.contains("Connection refused") || said.contains("tcp connect error") {
                // cargo lambda watch is not listening yet.
                std::thread::sleep(Duration::from_millis(250));
                continue;
            }
            assert!(status.success(), "{function} {name}: {status}\n{said}");
            return serde_json::from_slice(&stdout).unwrap();
        }
        panic!("cargo lambda watch does not listen");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Ends the whole process group: the function is a child of another cargo.
        let _ = Command::new("kill").args(["-9", "--", &format!("-{}", self.child.id())]).status();
        let _ = self.child.wait();
    }
}

fn failures(answer: &Value) -> &Vec<Value> {
    answer["batchItemFailures"].as_array().unwrap()
}

#[test]
#[ignore = "needs a stack and cargo lambda; `make test` starts one and runs this"]
fn under_cargo_lambda() {
    let stack = Stack::of_this_run();

    let generator = Watch::start("generator", &stack);
    for name in ["generator-batch", "generator-mixed", "generator-duplicate", "generator-poison"] {
        // Valid rows complete, repeated ones without a call; unreadable messages go to the retry queue. No message is returned.
        assert!(failures(&generator.invoke("generator", name)).is_empty(), "{name}");
    }
    drop(generator);

    let merger = Watch::start("merger", &stack);
    assert!(failures(&merger.invoke("merger", "merger-test-event")).is_empty());
    // Results of a job that does not exist: the message is returned, so that it ends in the failure queue.
    assert!(!failures(&merger.invoke("merger", "merger-batch")).is_empty());
    assert!(failures(&merger.invoke("merger", "merger-schedule")).is_empty());
    drop(merger);

    let splitter = Watch::start("splitter", &stack);
    assert_eq!(splitter.invoke("splitter", "splitter-test-event"), Value::Null);
    // An object that no longer exists has nothing to split.
    assert_eq!(splitter.invoke("splitter", "splitter-put-encoded-key"), Value::Null);
}
