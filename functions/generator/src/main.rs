//! The generator: makes the paid call of each row in a batch, and returns the messages that have to be delivered again.

use std::{process::ExitCode, sync::Arc};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use packshot_aws::{
    clients::Aws,
    clock::SystemClock,
    config::{GeneratorConfig, process_environment},
    emf::EmfMetrics,
    events::{batch_response, deadline, handle_each},
    images_api::ImagesApi,
    telemetry,
};
use packshot_pipeline::{
    generate::{generate, worker::Worker},
    ports::{NoopNotifier, Ports},
    settings::GenerateSettings,
};

/// Enough to keep a small function's CPU busy. Without a limit, a batch of 100 rows would open 200 connections.
const MAX_STORE_REQUESTS: usize = 16;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::exit(run().await)
}

async fn run() -> Result<(), Error> {
    let config = GeneratorConfig::read(process_environment)?;
    telemetry::init(config.log_level);
    let (aws, clock, settings) = (Aws::load().await, Arc::new(SystemClock), config.settings);
    let key = Arc::new(aws.key(&config.api_key_secret_arn));
    let metrics = Arc::new(EmfMetrics::new(&config.stack_name, config.price_per_image));
    let ports = Ports {
        store: Arc::new(aws.store(&config.bucket).with_max_requests(MAX_STORE_REQUESTS)),
        rows: Arc::new(aws.queue(&config.rows_queue_url)),
        retry: Arc::new(aws.queue(&config.retry_queue_url)),
        images: Arc::new(ImagesApi::new(&config.api_base_url, settings.request_timeout, key, clock.clone())?),
        clock,
        metrics: metrics.clone(),
        notifier: Arc::new(NoopNotifier),
    };
    let worker = Worker::new(&SystemClock, &settings);
    lambda_runtime::run(service_fn(|event| handle(&ports, &settings, &worker, &metrics, event))).await
}

async fn handle(
    ports: &Ports,
    settings: &GenerateSettings,
    worker: &Worker,
    metrics: &EmfMetrics,
    LambdaEvent { payload, context }: LambdaEvent<SqsEvent>,
) -> Result<SqsBatchResponse, Error> {
    let deadline = deadline(context.deadline);
    let work = handle_each(payload, |message| Box::pin(generate(ports, settings, worker, vec![message], deadline)));
    Ok(batch_response(telemetry::invocation(metrics, &context.request_id, context.xray_trace_id, work).await))
}
