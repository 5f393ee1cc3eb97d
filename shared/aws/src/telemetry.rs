//! The log of a Lambda function: one JSON object per line on standard output, which CloudWatch stores. The fields of the
//! surrounding spans (request id, trace id, row) are at the top level of every line, where a query finds them.

use std::{fmt::Display, io, process::ExitCode};

use tracing::{Instrument as _, Subscriber};
use tracing_subscriber::{
    Layer, filter::Targets, fmt::MakeWriter, layer::SubscriberExt as _, registry::LookupSpan,
    util::SubscriberInitExt as _,
};

pub use tracing::level_filters::LevelFilter;

use crate::{emf::EmfMetrics, trace};

/// Starts logging. `level` applies to packshot's own crates. Libraries log warnings and errors at most, because at lower levels
/// they log requests, and with them the API key.
pub fn init(level: LevelFilter) {
    // A second call has no effect: the first subscriber stays.
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

/// Runs the handler of one event inside its trace and a span with its request id. Prints the metrics when it ends, also after
/// a panic.
pub async fn invocation<F: Future>(
    metrics: &EmfMetrics,
    request_id: &str,
    trace_header: Option<String>,
    handle: F,
) -> F::Output {
    let _flush = metrics.flush_on_drop();
    let span = tracing::error_span!("invocation", request_id);
    trace::within(trace_header, handle).instrument(span).await
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(["packshot", "splitter", "generator", "merger"].map(|target| (target, level)))
}

/// Turns the end of a function into its exit code and prints an error as one JSON line. It does not use the log, which may not
/// have started: its level is part of the configuration.
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
    async fn every_line_names_its_request_trace_and_row() {
        let written = Written::default();
        let writer = written.clone();
        let log = tracing_subscriber::registry().with(layer(LevelFilter::WARN, move || writer.clone()));
        let _guard = tracing::subscriber::set_default(log);
        let metrics = EmfMetrics::new("s", 0.0);
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
        let fields: Vec<_> =
            lines.iter().map(|line| [&line["message"], &line["request_id"], &line["trace_id"], &line["row"]]).collect();
        assert_eq!(
            fields,
            [
                [&json!("outside"), &json!("request-1"), &json!("1-own"), &Value::Null],
                [&json!("inside"), &json!("request-1"), &json!("1-message"), &json!(7)],
            ]
        );
        assert_eq!((&lines[1]["level"], &lines[1]["code"]), (&json!("ERROR"), &json!("c")));
        assert!(lines[0]["timestamp"].is_string(), "{text}");
    }

    #[test]
    fn only_packshots_crates_log_below_warnings() {
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
