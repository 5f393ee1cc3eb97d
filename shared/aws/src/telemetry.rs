//! The log of a Lambda function: one JSON object per line on standard output, which CloudWatch keeps. What is known of the
//! invocation and of the row stands in every line, at the top level, where a query finds it.

use std::{fmt::Display, io, process::ExitCode};

use tracing::{Instrument as _, Subscriber};
use tracing_subscriber::{
    Layer, filter::Targets, fmt::MakeWriter, layer::SubscriberExt as _, registry::LookupSpan,
    util::SubscriberInitExt as _,
};

pub use tracing::level_filters::LevelFilter;

use crate::{metrics::Metrics, trace};

/// Begins logging. `level` is for our own code. Libraries stay at warnings whatever is asked for, because at their lower
/// levels they write down requests, and with them the API key.
pub fn init(level: LevelFilter) {
    // A second call is a mistake without consequences: the first log stays.
    let _ = tracing_subscriber::registry().with(layer(level, io::stdout)).try_init();
}

fn layer<S, W>(level: LevelFilter, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let log = json_subscriber::fmt::layer().with_writer(writer).flatten_event(true).with_current_span(false);
    log.flatten_span_list_on_top_level(true).with_filter(filter(level))
}

/// Handles one event as part of its trace. What is logged meanwhile names the request, and at the end, also that of a panic,
/// the metrics are written down.
pub async fn invocation<F: Future>(
    metrics: &Metrics,
    request_id: &str,
    trace_header: Option<String>,
    handle: F,
) -> F::Output {
    let _facts = metrics.invocation();
    let span = tracing::error_span!("invocation", request_id);
    trace::within(trace_header, handle).instrument(span).await
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(["packshot", "splitter", "generator", "merger"].map(|target| (target, level)))
}

/// Ends a function: the reason why it cannot work goes to the log, in one line like all others. The log itself may not have
/// begun: its level is part of the configuration.
pub fn exit(outcome: Result<(), impl Display>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", serde_json::json!({ "level": "ERROR", "message": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing::{Level, field::Empty};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_line_says_of_which_request_trace_and_row_it_is() {
        let written = Written::default();
        let writer = written.clone();
        let log = tracing_subscriber::registry().with(layer(LevelFilter::WARN, move || writer.clone()));
        let _guard = tracing::subscriber::set_default(log);
        let metrics = Metrics::new("s", 0.0);
        invocation(&metrics, "request-1", Some("Root=1-own;Sampled=1".into()), async {
            tracing::warn!(target: "packshot_pipeline", "outside");
            let work = async {
                let row = tracing::error_span!(target: "packshot_pipeline", "message", row = Empty);
                let _entered = row.enter();
                row.record("row", 7);
                tracing::info!(target: "packshot_pipeline", "not at this level");
                tracing::error!(target: "packshot_pipeline", code = "c", "inside");
            };
            trace::within(Some("Root=1-message".into()), work).await;
        })
        .await;
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told: Vec<_> =
            lines.iter().map(|line| [&line["message"], &line["request_id"], &line["trace_id"], &line["row"]]).collect();
        assert_eq!(
            told,
            [
                [&json!("outside"), &json!("request-1"), &json!("1-own"), &Value::Null],
                [&json!("inside"), &json!("request-1"), &json!("1-message"), &json!(7)],
            ]
        );
        assert_eq!((&lines[1]["level"], &lines[1]["code"]), (&json!("ERROR"), &json!("c")));
        assert!(lines[0]["timestamp"].is_string(), "{text}");
    }

    #[test]
    fn only_our_own_code_gets_chatty() {
        let filter = filter(LevelFilter::TRACE);
        assert!(filter.would_enable("packshot_pipeline::generate", &Level::TRACE));
        for library in [
            "lambda_runtime::layers",
            "aws_smithy_runtime::client",
            "hyper_util::client",
            "reqwest::connect",
            "aws_config",
        ] {
            assert!(filter.would_enable(library, &Level::WARN), "{library}");
            assert!(!filter.would_enable(library, &Level::INFO), "{library}");
        }
        let quiet = super::filter(LevelFilter::ERROR);
        assert!(!quiet.would_enable("aws_config", &Level::WARN));
    }
}
