//! The generator: messages become pictures, one paid call each.

use std::{process::ExitCode, sync::Arc};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use packshot_aws::{
    clients::Aws,
    clock::SystemClock,
    config::{GeneratorConfig, process_environment},
    events::{batch_response, deadline, deliveries},
    images_api::ImagesApi,
    telemetry,
};
use packshot_pipeline::{
    generate::generate, journal::Nobody, ports::Ports, settings::GenerateSettings, worker::Worker,
};

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
    let ports = Ports {
        store: Arc::new(aws.store(&config.bucket)),
        rows: Arc::new(aws.queue(&config.rows_queue_url)),
        retry: Arc::new(aws.queue(&config.retry_queue_url)),
        images: Arc::new(images),
        clock,
        journal: Arc::new(Nobody),
        notices: Arc::new(Nobody),
    };
    lambda_runtime::run(service_fn(|event| handle(&ports, &settings, &worker, event))).await
}

async fn handle(
    ports: &Ports,
    settings: &GenerateSettings,
    worker: &Worker,
    event: LambdaEvent<SqsEvent>,
) -> Result<SqsBatchResponse, Error> {
    let deadline = deadline(event.context.deadline);
    let come_back = Box::pin(generate(ports, settings, worker, deliveries(event.payload), deadline)).await;
    Ok(batch_response(come_back))
}
