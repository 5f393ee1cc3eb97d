//! The baseline of a cold start: a function that does nothing, but builds the same clients as the product's functions.

use aws_config::BehaviorVersion;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let s3 = aws_sdk_s3::Client::new(&config);
    let sqs = aws_sdk_sqs::Client::new(&config);
    let http = reqwest::Client::builder().build()?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| {
        // No event reaches these calls. They keep the linker from removing the clients' code, which counts in the binary's size.
        let clients = (s3.clone(), sqs.clone(), http.clone());
        async move {
            if event.payload.is_object() {
                clients.0.list_buckets().send().await?;
                clients.1.list_queues().send().await?;
                clients.2.get("http://127.0.0.1").send().await?;
            }
            Ok::<_, Error>(Value::Null)
        }
    }))
    .await
}
