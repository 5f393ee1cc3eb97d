//! The splitter: validates each uploaded catalog to its end, then sends one SQS message for each valid row.

use std::{process::ExitCode, sync::Arc};

use lambda_runtime::{Error, LambdaEvent, service_fn};
use packshot_aws::{
    clients::Aws,
    clock::SystemClock,
    config::{SplitterConfig, process_environment},
    emf::EmfMetrics,
    events::{S3Notification, deadline, split_each},
    telemetry,
    unused::Unused,
};
use packshot_pipeline::{ports::Ports, split::split};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::exit(run().await)
}

async fn run() -> Result<(), Error> {
    let config = SplitterConfig::read(process_environment)?;
    telemetry::init(config.log_level);
    let aws = Aws::load().await;
    // The splitter makes no paid calls, so the price is irrelevant.
    let metrics = Arc::new(EmfMetrics::new(&config.stack_name, 0.0));
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
    metrics: &EmfMetrics,
    LambdaEvent { payload, context }: LambdaEvent<S3Notification>,
) -> Result<(), Error> {
    let deadline = deadline(context.deadline);
    let work = split_each(payload, |input| Box::pin(split(ports, &config.settings, input, deadline)));
    Ok(telemetry::invocation(metrics, &context.request_id, context.xray_trace_id, work).await?)
}
