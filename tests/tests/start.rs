//! The start of the functions, with the real executables: with a wrong configuration a function ends before it asks for an event, and
//! its log has one line with all problems.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

use std::{
    net::TcpListener,
    process::{Command, Stdio},
};

use packshot_tests::binary;
use serde_json::Value;

const KEY: &str = "sk-live-start-12345678";

/// Starts a function, which must end without asking Lambda for an event. Returns its error message.
fn refusal(function: &str, environment: &[(&str, &str)]) -> String {
    let lambda = TcpListener::bind("127.0.0.1:0").unwrap();
    lambda.set_nonblocking(true).unwrap();
    let ended = Command::new(binary(function))
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", lambda.local_addr().unwrap().to_string())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(lambda.accept().is_err(), "{function} has asked for an event");
    assert!(ended.stdout.is_empty(), "{ended:?}");
    let log = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(!log.contains(KEY), "the log contains the key");
    let line: Value = serde_json::from_str(&log).unwrap();
    assert_eq!(line["level"], "ERROR");
    line["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_function_without_its_configuration_does_not_start() {
    for (function, missing) in [
        ("splitter", vec!["BUCKET", "ROWS_QUEUE_URL"]),
        ("generator", vec!["BUCKET", "ROWS_QUEUE_URL", "RETRY_QUEUE_URL", "API_KEY_SECRET_ARN"]),
        ("merger", vec!["BUCKET"]),
    ] {
        let message = refusal(function, &[]);
        assert!(message.starts_with(&format!("the configuration has {} problem(s):", missing.len())), "{message}");
        for name in missing {
            assert!(message.contains(&format!("\n- {name} (")), "{message}");
        }
    }
}

#[test]
fn all_problems_are_reported_at_once_without_the_key() {
    let message = refusal(
        "generator",
        &[
            ("BUCKET", "b"),
            ("ROWS_QUEUE_URL", "https://sqs.test/rows"),
            ("RETRY_QUEUE_URL", ""),
            // A frequent mistake: the key instead of the secret's ARN.
            ("API_KEY_SECRET_ARN", KEY),
            ("REQUEST_TIMEOUT_SECONDS", "five minutes"),
            ("MAX_RETRIES", "11"),
        ],
    );
    assert!(message.starts_with("the configuration has 4 problem(s):"), "{message}");
    assert!(message.contains("REQUEST_TIMEOUT_SECONDS (parameter RequestTimeoutSeconds): must be a whole number of seconds from 1 to 840, not `five minutes`"), "{message}");
}
