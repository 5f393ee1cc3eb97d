//! The log of a Lambda function: one JSON object per line on standard output, which CloudWatch keeps.

use std::{fmt::Display, process::ExitCode};

use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

pub use tracing::level_filters::LevelFilter;

/// Begins logging. `level` is for our own code. Libraries stay at warnings whatever is asked for, because at their lower
/// levels they write down requests, and with them the API key.
pub fn init(level: LevelFilter) {
    let log = tracing_subscriber::fmt::layer().json().flatten_event(true).with_ansi(false);
    // A second call is a mistake without consequences: the first log stays.
    let _ = tracing_subscriber::registry().with(log.with_filter(filter(level))).try_init();
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(["packshot", "splitter", "generator", "merger"].map(|target| (target, level)))
        // Its span carries the request id.
        .with_target("lambda_runtime", level.min(LevelFilter::INFO))
}

/// Ends a function: the reason why it cannot work goes to the log, in one piece and readable.
pub fn exit(outcome: Result<(), impl Display>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn only_our_own_code_gets_chatty() {
        let filter = filter(LevelFilter::TRACE);
        assert!(filter.would_enable("packshot_pipeline::generate", &Level::TRACE));
        assert!(filter.would_enable("lambda_runtime::layers", &Level::INFO));
        for library in ["aws_smithy_runtime::client", "hyper_util::client", "reqwest::connect", "aws_config"] {
            assert!(filter.would_enable(library, &Level::WARN), "{library}");
            assert!(!filter.would_enable(library, &Level::INFO), "{library}");
        }
        let quiet = super::filter(LevelFilter::ERROR);
        assert!(!quiet.would_enable("aws_config", &Level::WARN));
    }
}
