//! The merger: results that changed become parts and manifests.

use std::{process::ExitCode, sync::Arc};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use packshot_aws::{
    clients::Aws,
    clock::SystemClock,
    config::{MergerConfig, process_environment},
    events::{batch_response, changes},
    telemetry,
    unused::Unused,
};
use packshot_pipeline::{journal::Nobody, merge::merge, ports::Ports};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::exit(run().await)
}

async fn run() -> Result<(), Error> {
    let config = MergerConfig::read(process_environment)?;
    telemetry::init(config.log_level);
    let aws = Aws::load().await;
    let ports = Ports {
        store: Arc::new(aws.store(&config.bucket)),
        rows: Arc::new(Unused),
        retry: Arc::new(Unused),
        images: Arc::new(Unused),
        clock: Arc::new(SystemClock),
        journal: Arc::new(Nobody),
        notices: Arc::new(Nobody),
    };
    lambda_runtime::run(service_fn(|event| handle(&ports, event))).await
}

async fn handle(ports: &Ports, event: LambdaEvent<SqsEvent>) -> Result<SqsBatchResponse, Error> {
    let changes = changes(event.payload);
    let mut come_back = Box::pin(merge(ports, changes.batch)).await;
    come_back.extend(changes.poison);
    Ok(batch_response(come_back))
}
