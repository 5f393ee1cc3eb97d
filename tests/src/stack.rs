//! A client of the local AWS that `./stack up` started, with fresh queues and topics for each test.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::types::QueueAttributeName;
use bytes::Bytes;
use packshot_aws::clients::Aws;
use packshot_pipeline::{
    model::message::MAX_MESSAGE_BYTES,
    ports::{Delivery, Notifier},
};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::{
    queue::{Consumer, QueueUnderTest},
    store::{Bucket, Versions},
};

/// The environment variable that holds the JSON line of `./stack up`.
pub const VARIABLE: &str = "PACKSHOT_TEST_STACK";

/// The JSON line of `./stack up`: the address of the local AWS, and the resources that are deployed on it.
#[derive(Debug, Clone, Deserialize)]
pub struct Stack {
    /// The base URL of every service.
    pub endpoint: String,
    /// The name of the bucket.
    pub bucket: String,
    /// URL of the rows queue.
    pub rows_queue_url: String,
    /// URL of the retry queue.
    pub retry_queue_url: String,
    /// URL of the merge queue.
    pub merge_queue_url: String,
    /// Base URL of the demo API that the generator calls.
    pub api_url: String,
    /// Path of the log of the local AWS and of all functions.
    pub log: PathBuf,
    /// Process id of the local AWS, the parent of the functions' processes.
    pub pid: u32,
}

impl Stack {
    /// The stack of this test run. Tests that call this are `#[ignore]`d: a plain `cargo test` omits them, and without a stack
    /// they fail instead of passing without a check.
    #[must_use]
    pub fn of_this_run() -> Self {
        #[expect(clippy::disallowed_methods, reason = "`make test` passes the stack to its tests in this variable")]
        let line = env::var(VARIABLE);
        let line = line.unwrap_or_else(|_| panic!("run with {VARIABLE}=\"$(./stack up)\"; `make test` does"));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{VARIABLE} is not what ./stack up prints: {error}"))
    }

    /// The directory of its pids and logs, for `./stack … --state-dir`.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        self.log.parent().unwrap()
    }

    /// The configuration of an SDK client.
    pub async fn config(&self) -> SdkConfig {
        let credentials = aws_sdk_s3::config::Credentials::new("test", "test", None, None, "the local AWS");
        aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(&self.endpoint)
            .credentials_provider(credentials)
            .load()
            .await
    }

    /// The bucket, with a new prefix that triggers no function.
    pub async fn bucket(&self) -> Bucket {
        let config = self.config().await;
        let raw = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
        let versions = StackVersions { client: aws_sdk_s3::Client::from_conf(raw), bucket: self.bucket.clone() };
        let store = Arc::new(Aws::new(&config).store(&self.bucket));
        Bucket::new(store).with_prefix(&format!("contract/{}/", fresh_name())).with_versions(Arc::new(versions))
    }

    /// Creates a queue.
    pub async fn queue(&self, visibility: Duration) -> QueueUnderTest {
        let config = self.config().await;
        let client = aws_sdk_sqs::Client::new(&config);
        let created = client
            .create_queue()
            .queue_name(format!("contract-{}", fresh_name()))
            .attributes(QueueAttributeName::VisibilityTimeout, visibility.as_secs().to_string())
            .attributes(QueueAttributeName::MaximumMessageSize, MAX_MESSAGE_BYTES.to_string())
            .send()
            .await
            .unwrap();
        let url = created.queue_url.unwrap();
        let queue = Arc::new(Aws::new(&config).queue(&url));
        QueueUnderTest::new(queue, Arc::new(StackConsumer { client, url }), visibility)
    }

    /// The notifier of a topic.
    pub async fn notifier(&self, arn: &str) -> Arc<dyn Notifier> {
        Aws::new(&self.config().await).notifier(Some(arn))
    }

    /// Creates a topic, and a queue that is subscribed to the notifications of failures.
    pub async fn topic(&self) -> Topic {
        let sns = aws_sdk_sns::Client::new(&self.config().await);
        let arn =
            sns.create_topic().name(format!("contract-{}", fresh_name())).send().await.unwrap().topic_arn.unwrap();
        let inbox = self.inbox(&arn, Some(r#"{"status": ["failed", "complete_with_failures"]}"#)).await;
        Topic { notifier: self.notifier(&arn).await, arn, inbox }
    }

    /// Creates a queue that is subscribed to a topic.
    pub async fn inbox(&self, topic_arn: &str, filter: Option<&str>) -> Inbox {
        let config = self.config().await;
        let sqs = aws_sdk_sqs::Client::new(&config);
        let allow_topics = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sqs:SendMessage",
            "Principal": {"Service": "sns.amazonaws.com"}, "Resource": "*"}]}"#;
        let created = sqs
            .create_queue()
            .queue_name(format!("inbox-{}", fresh_name()))
            .attributes(QueueAttributeName::Policy, allow_topics)
            .send()
            .await
            .unwrap();
        let url = created.queue_url.unwrap();
        let wanted = QueueAttributeName::QueueArn;
        let found = sqs.get_queue_attributes().queue_url(&url).attribute_names(wanted.clone()).send().await.unwrap();
        aws_sdk_sns::Client::new(&config)
            .subscribe()
            .topic_arn(topic_arn)
            .protocol("sqs")
            .endpoint(&found.attributes.unwrap()[&wanted])
            .set_attributes(filter.map(|filter| [("FilterPolicy".to_owned(), filter.to_owned())].into()))
            .send()
            .await
            .unwrap();
        Inbox { sqs, url }
    }
}

/// A topic and its subscriber.
pub struct Topic {
    /// Its ARN.
    pub arn: String,
    /// The adapter under test.
    pub notifier: Arc<dyn Notifier>,
    inbox: Inbox,
}

impl Topic {
    /// Returns the next message that the subscriber receives.
    pub async fn receive(&self) -> Value {
        self.inbox.receive().await.expect("a message within ten seconds")
    }
}

/// A queue that is subscribed to a topic.
pub struct Inbox {
    sqs: aws_sdk_sqs::Client,
    url: String,
}

impl Inbox {
    /// Returns the next message in the envelope of SNS, or nothing if none arrives within ten seconds.
    pub async fn receive(&self) -> Option<Value> {
        let answer = self.sqs.receive_message().queue_url(&self.url).wait_time_seconds(10).send().await.unwrap();
        let message = answer.messages.unwrap_or_default().pop()?;
        self.sqs
            .delete_message()
            .queue_url(&self.url)
            .receipt_handle(message.receipt_handle.unwrap())
            .send()
            .await
            .unwrap();
        Some(serde_json::from_str(&message.body.unwrap()).unwrap())
    }
}

/// Returns a name that no other test and no earlier run uses.
fn fresh_name() -> String {
    let directory = tempfile::Builder::new().prefix("").rand_bytes(12).tempdir().unwrap();
    directory.path().file_name().unwrap().to_string_lossy().into_owned()
}

struct StackVersions {
    client: aws_sdk_s3::Client,
    bucket: String,
}

#[async_trait]
impl Versions for StackVersions {
    async fn put(&self, key: &str, body: Bytes) -> String {
        let put = self.client.put_object().bucket(&self.bucket).key(key).body(body.into()).send().await.unwrap();
        put.version_id.expect("the bucket keeps versions")
    }
}

struct StackConsumer {
    client: aws_sdk_sqs::Client,
    url: String,
}

#[async_trait]
impl Consumer for StackConsumer {
    async fn receive(&self) -> Vec<Delivery> {
        let answer =
            self.client.receive_message().queue_url(&self.url).max_number_of_messages(10).send().await.unwrap();
        let delivery = |message: aws_sdk_sqs::types::Message| Delivery {
            id: message.message_id.unwrap(),
            body: message.body.unwrap(),
            receipt: message.receipt_handle.unwrap(),
        };
        answer.messages.unwrap_or_default().into_iter().map(delivery).collect()
    }

    async fn delete(&self, receipt: &str) {
        // The contract does not say what SQS answers to an old receipt, only what happens to the message.
        let _ = self.client.delete_message().queue_url(&self.url).receipt_handle(receipt).send().await;
    }
}
