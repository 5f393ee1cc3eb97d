//! The merger: results that changed become parts and manifests. Now and then it looks after jobs that no event has ended.

use std::{process::ExitCode, sync::Arc};

use aws_lambda_events::sqs::SqsBatchResponse;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use packshot_aws::{
    clients::Aws,
    clock::SystemClock,
    config::{MergerConfig, process_environment},
    events::{MergerEvent, batch_response, changes, deadline},
    metrics::Metrics,
    telemetry,
    unused::Unused,
};
use packshot_pipeline::{
    merge::{merge, sweep::sweep},
    ports::Ports,
};

/// At 12 ms each that is what S3 gives for one prefix, 5,500 reads a second. Four parts at once would make 256 requests, and
/// each of those costs a quarter more CPU. The pieces of a manifest that is being sent are not counted.
const STORE_REQUESTS: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::exit(run().await)
}

async fn run() -> Result<(), Error> {
    let config = MergerConfig::read(process_environment)?;
    telemetry::init(config.log_level);
    let aws = Aws::load().await;
    // It calls nothing that has a price.
    let metrics = Arc::new(Metrics::new(&config.stack_name, 0.0));
    let ports = Ports {
        store: Arc::new(aws.store(&config.bucket).at_most(STORE_REQUESTS)),
        rows: Arc::new(Unused),
        retry: Arc::new(Unused),
        images: Arc::new(Unused),
        clock: Arc::new(SystemClock),
        journal: metrics.clone(),
        notices: aws.notices(config.notify_topic_arn.as_deref()),
    };
    lambda_runtime::run(service_fn(|event| handle(&ports, &metrics, event))).await
}

async fn handle(
    ports: &Ports,
    metrics: &Metrics,
    LambdaEvent { payload, context }: LambdaEvent<MergerEvent>,
) -> Result<SqsBatchResponse, Error> {
    let deadline = deadline(context.deadline);
    let work = Box::pin(async {
        match payload {
            MergerEvent::Batch(batch) => {
                let changes = changes(batch);
                let mut come_back = merge(ports, changes.batch).await;
                come_back.extend(changes.poison);
                Ok(batch_response(come_back))
            }
            MergerEvent::Schedule => {
                sweep(ports, deadline).await?;
                Ok(SqsBatchResponse::default())
            }
        }
    });
    telemetry::invocation(metrics, &context.request_id, context.xray_trace_id, work).await
}
