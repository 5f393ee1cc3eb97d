//! The functions' start, with the real binaries: with a wrong configuration they do not begin at all, and say why in one line of
//! their log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

use std::{
    net::TcpListener,
    process::{Command, Stdio},
};

use packshot_tests::binary;
use serde_json::Value;

const KEY: &str = "sk-live-start-12345678";

/// What a function says before it ends, having asked Lambda for nothing.
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
    assert!(lambda.accept().is_err(), "{function} has asked for work");
    assert!(ended.stdout.is_empty(), "{ended:?}");
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!said.contains(KEY), "the key shows");
    let line: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(line["level"], "ERROR");
    line["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_function_without_its_configuration_does_not_begin() {
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
fn all_problems_are_said_at_once_and_the_key_is_not() {
    let message = refusal(
        "generator",
        &[
            ("BUCKET", "b"),
            ("ROWS_QUEUE_URL", "https://sqs.test/rows"),
            ("RETRY_QUEUE_URL", ""),
            // A mistake that people make.
            ("API_KEY_SECRET_ARN", KEY),
            ("REQUEST_TIMEOUT_SECONDS", "five minutes"),
            ("MAX_RETRIES", "11"),
        ],
    );
    assert!(message.starts_with("the configuration has 4 problem(s):"), "{message}");
    assert!(message.contains("REQUEST_TIMEOUT_SECONDS (parameter RequestTimeoutSeconds): must be a whole number of seconds from 1 to 840, not `five minutes`"), "{message}");
}
