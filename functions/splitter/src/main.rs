//! The splitter: a catalog that was dropped into the bucket becomes one message per row.

use std::{process::ExitCode, sync::Arc};

use lambda_runtime::{Error, LambdaEvent, service_fn};
use packshot_aws::{
    clients::Aws,
    clock::SystemClock,
    config::{SplitterConfig, process_environment},
    events::{Notification, deadline},
    metrics::Metrics,
    telemetry,
    unused::Unused,
};
use packshot_pipeline::{
    ports::Ports,
    split::{SplitReport, split},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::exit(run().await)
}

async fn run() -> Result<(), Error> {
    let config = SplitterConfig::read(process_environment)?;
    telemetry::init(config.log_level);
    let aws = Aws::load().await;
    // It calls nothing that has a price.
    let metrics = Arc::new(Metrics::new(&config.stack_name, 0.0));
    let ports = Ports {
        store: Arc::new(aws.store(&config.bucket)),
        rows: Arc::new(aws.queue(&config.rows_queue_url)),
        retry: Arc::new(Unused),
        images: Arc::new(Unused),
        clock: Arc::new(SystemClock),
        metrics: metrics.clone(),
        notifier: aws.notifier(config.notify_topic_arn.as_deref()),
    };
    lambda_runtime::run(service_fn(|event| handle(&ports, &config, &metrics, event))).await
}

async fn handle(
    ports: &Ports,
    config: &SplitterConfig,
    metrics: &Metrics,
    LambdaEvent { payload, context }: LambdaEvent<Notification>,
) -> Result<(), Error> {
    let work = split_all(ports, config, payload, context.deadline);
    telemetry::invocation(metrics, &context.request_id, context.xray_trace_id, work).await
}

/// One catalog's trouble is not the next one's. An error makes Lambda call again; what was done is not done twice.
async fn split_all(ports: &Ports, config: &SplitterConfig, event: Notification, deadline_ms: u64) -> Result<(), Error> {
    let deadline = deadline(deadline_ms);
    let mut problems = Vec::new();
    for input in event.splits()? {
        let key = input.key.clone();
        match Box::pin(split(ports, &config.settings, input, deadline)).await {
            Ok(SplitReport::Split(job)) => {
                tracing::info!(key, job = %job.job, rows = job.rows, valid = job.valid, rejected = job.rejected, "split");
            }
            Ok(SplitReport::Rejected { job, problem, .. }) => {
                // The sentence stands in the summary: it may quote the file.
                tracing::warn!(key, %job, code = problem.code, line = problem.line, "not a catalog");
            }
            Ok(SplitReport::Nothing(why)) => tracing::info!(key, why, "nothing to split"),
            Err(error) => {
                tracing::warn!(key, %error, "not split to the end");
                problems.push(format!("{key}: {error}"));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n").into()) }
}
