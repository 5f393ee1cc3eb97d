//! The merger: merges changed results into parts and manifests; on a schedule, it finishes the jobs that no event has finished.

use std::{process::ExitCode, sync::Arc};

use aws_lambda_events::sqs::SqsBatchResponse;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use packshot_aws::{
    clients::Aws,
    clock::SystemClock,
    config::{MergerConfig, process_environment},
    emf::EmfMetrics,
    events::{MergerEvent, deadline, merge_changes},
    telemetry,
    unused::Unused,
};
use packshot_pipeline::{
    merge::{merge, sweep::sweep},
    ports::Ports,
};

/// At 12 ms each, these make the 5,500 reads a second that S3 allows for one prefix. Without a limit, four parts at once would
/// make 256 requests, each of which costs a quarter more CPU. The pieces of a manifest being sent do not count.
const MAX_STORE_REQUESTS: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::exit(run().await)
}

async fn run() -> Result<(), Error> {
    let config = MergerConfig::read(process_environment)?;
    telemetry::init(config.log_level);
    let aws = Aws::load().await;
    // The merger makes no paid calls, so the price is irrelevant.
    let metrics = Arc::new(EmfMetrics::new(&config.stack_name, 0.0));
    let ports = Ports {
        store: Arc::new(aws.store(&config.bucket).with_max_requests(MAX_STORE_REQUESTS)),
        rows: Arc::new(Unused),
        retry: Arc::new(Unused),
        images: Arc::new(Unused),
        clock: Arc::new(SystemClock),
        metrics: metrics.clone(),
        notifier: aws.notifier(config.notify_topic_arn.as_deref()),
    };
    lambda_runtime::run(service_fn(|event| handle(&ports, &metrics, event))).await
}

async fn handle(
    ports: &Ports,
    metrics: &EmfMetrics,
    LambdaEvent { payload, context }: LambdaEvent<MergerEvent>,
) -> Result<SqsBatchResponse, Error> {
    let deadline = deadline(context.deadline);
    let work = Box::pin(async {
        match payload {
            MergerEvent::Batch(batch) => Ok(merge_changes(batch, |changes| merge(ports, changes)).await),
            MergerEvent::Schedule => Ok(sweep(ports, deadline).await.map(|()| SqsBatchResponse::default())?),
        }
    });
    telemetry::invocation(metrics, &context.request_id, context.xray_trace_id, work).await
}
