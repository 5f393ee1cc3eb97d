//! The local AWS that `./stack up` started.

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
    ports::{Delivery, Notices},
};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::{
    queue::{Consumer, QueueUnderTest},
    store::{Bucket, Versions},
};

/// The variable that holds the line which `./stack up` prints.
pub const VARIABLE: &str = "PACKSHOT_TEST_STACK";

/// Where the local AWS is, and what is deployed on it.
#[derive(Debug, Clone, Deserialize)]
pub struct Stack {
    /// The base URL of every service.
    pub endpoint: String,
    /// The one bucket.
    pub bucket: String,
    /// The rows queue.
    pub rows_queue_url: String,
    /// The retry queue.
    pub retry_queue_url: String,
    /// The merge queue.
    pub merge_queue_url: String,
    /// The demo API that the generator calls.
    pub api_url: String,
    /// The log of the local AWS and of all functions.
    pub log: PathBuf,
    /// The local AWS's process, parent of the functions'.
    pub pid: u32,
}

impl Stack {
    /// The stack that this test run uses. Tests that call this are `#[ignore]`d: nothing else tells a run without a stack
    /// from one whose stack is missing by mistake.
    #[must_use]
    pub fn of_this_run() -> Self {
        #[expect(clippy::disallowed_methods, reason = "how a test run hands the stack to its tests")]
        let line = env::var(VARIABLE);
        let line = line.unwrap_or_else(|_| panic!("run with {VARIABLE}=\"$(./stack up)\"; `make test` does"));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{VARIABLE} is not what ./stack up prints: {error}"))
    }

    /// The directory that holds its pids and logs, for `./stack … --state-dir`.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        self.log.parent().unwrap()
    }

    /// The SDK's configuration for it.
    pub async fn config(&self) -> SdkConfig {
        let credentials = aws_sdk_s3::config::Credentials::new("test", "test", None, None, "the local AWS");
        aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(&self.endpoint)
            .credentials_provider(credentials)
            .load()
            .await
    }

    /// Its bucket, with a prefix of this caller's own that triggers nothing.
    pub async fn bucket(&self) -> Bucket {
        let config = self.config().await;
        let raw = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
        let versions = StackVersions { client: aws_sdk_s3::Client::from_conf(raw), bucket: self.bucket.clone() };
        let store = Arc::new(Aws::new(&config).store(&self.bucket));
        Bucket::new(store).with_prefix(&format!("contract/{}/", fresh_name())).with_versions(Arc::new(versions))
    }

    /// A new queue of this caller's own.
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

    /// Notices to a topic.
    pub async fn notices(&self, arn: &str) -> Arc<dyn Notices> {
        Aws::new(&self.config().await).notices(Some(arn))
    }

    /// A new topic of this caller's own, with a queue that wants to hear of failures only.
    pub async fn topic(&self) -> Topic {
        let sns = aws_sdk_sns::Client::new(&self.config().await);
        let arn =
            sns.create_topic().name(format!("contract-{}", fresh_name())).send().await.unwrap().topic_arn.unwrap();
        let inbox = self.inbox(&arn, Some(r#"{"status": ["failed", "complete_with_failures"]}"#)).await;
        Topic { notices: self.notices(&arn).await, arn, inbox }
    }

    /// A new queue that is subscribed to a topic.
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

/// A topic and who has subscribed to it.
pub struct Topic {
    /// Its ARN.
    pub arn: String,
    /// The adapter under test.
    pub notices: Arc<dyn Notices>,
    inbox: Inbox,
}

impl Topic {
    /// The next message as its subscriber gets it.
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
    /// The next message as SNS wraps it; nothing, if none comes for ten seconds.
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

/// A name that no other test and no earlier run has.
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
        // What SQS says to a receipt that is not the latest is its own affair; what then happens is the contract's.
        let _ = self.client.delete_message().queue_url(&self.url).receipt_handle(receipt).send().await;
    }
}
