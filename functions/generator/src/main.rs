//! The generator: messages become pictures, one paid call each.

use std::{process::ExitCode, sync::Arc};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use packshot_aws::{
    clients::Aws,
    clock::SystemClock,
    config::{GeneratorConfig, process_environment},
    events::{batch_response, deadline, each},
    images_api::ImagesApi,
    metrics::Metrics,
    telemetry,
};
use packshot_pipeline::{
    generate::{generate, worker::Worker},
    ports::{Nobody, Ports},
    settings::GenerateSettings,
};

/// Enough to keep a small function's CPU busy; a batch of a hundred would open two hundred connections.
const STORE_REQUESTS: usize = 16;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::exit(run().await)
}

async fn run() -> Result<(), Error> {
    let config = GeneratorConfig::read(process_environment)?;
    telemetry::init(config.log_level);
    let aws = Aws::load().await;
    let clock = Arc::new(SystemClock);
    let key = Arc::new(aws.key(&config.api_key_secret_arn));
    let settings = config.settings;
    let images = ImagesApi::new(&config.api_base_url, settings.request_timeout, key, clock.clone())?;
    let worker = Worker::new(&*clock, &settings);
    let metrics = Arc::new(Metrics::new(&config.stack_name, config.price_per_image));
    let ports = Ports {
        store: Arc::new(aws.store(&config.bucket).at_most(STORE_REQUESTS)),
        rows: Arc::new(aws.queue(&config.rows_queue_url)),
        retry: Arc::new(aws.queue(&config.retry_queue_url)),
        images: Arc::new(images),
        clock,
        journal: metrics.clone(),
        notices: Arc::new(Nobody),
    };
    lambda_runtime::run(service_fn(|event| handle(&ports, &settings, &worker, &metrics, event))).await
}

async fn handle(
    ports: &Ports,
    settings: &GenerateSettings,
    worker: &Worker,
    metrics: &Metrics,
    LambdaEvent { payload, context }: LambdaEvent<SqsEvent>,
) -> Result<SqsBatchResponse, Error> {
    let deadline = deadline(context.deadline);
    let generate = |delivery| Box::pin(generate(ports, settings, worker, vec![delivery], deadline));
    let come_back = each(payload, generate);
    let come_back = telemetry::invocation(metrics, &context.request_id, context.xray_trace_id, come_back).await;
    Ok(batch_response(come_back))
}
