//! Notices over SNS: short readable mail for people, JSON for everything else.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_sns::{Client, types::MessageAttributeValue};
use packshot_pipeline::{
    notice::Notice,
    ports::{NoticeError, Notices},
};
use serde_json::json;

use crate::sdk_error::Failure;

/// SNS takes fewer than 100 characters of a subject.
const SUBJECT_CHARACTERS: usize = 99;

/// A topic.
#[derive(Debug, Clone)]
pub struct SnsTopic {
    client: Client,
    arn: String,
}

impl SnsTopic {
    /// The topic with this ARN.
    #[must_use]
    pub fn new(client: Client, arn: &str) -> Self {
        Self { client, arn: arn.to_owned() }
    }
}

#[async_trait]
impl Notices for SnsTopic {
    async fn publish(&self, notice: &Notice) -> Result<(), NoticeError> {
        self.client
            .publish()
            .topic_arn(&self.arn)
            .subject(subject(notice))
            .message_structure("json")
            .message(message(notice))
            .set_message_attributes(Some(attributes(notice)))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| {
                let failure = Failure::of(&error);
                if failure.is_passing() {
                    NoticeError::Unsent { detail: failure.into_detail() }
                } else {
                    NoticeError::Refused { detail: failure.into_detail() }
                }
            })
    }
}

/// What each protocol gets.
fn message(notice: &Notice) -> String {
    let machines = packshot_pipeline::json::to_string(notice);
    json!({ "default": machines, "email": notice.text() }).to_string()
}

/// SNS refuses a subject that is not ASCII, has control characters or begins with a space.
fn subject(notice: &Notice) -> String {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    notice.subject().chars().map(plain).take(SUBJECT_CHARACTERS).collect()
}

/// What a subscription can choose by.
fn attributes(notice: &Notice) -> HashMap<String, MessageAttributeValue> {
    let text = |text: String| MessageAttributeValue::builder().data_type("String").string_value(text).build().ok();
    let chosen = [("status", notice.status.as_str().to_owned()), ("catalog", notice.catalog.to_string())];
    chosen.into_iter().filter_map(|(name, value)| Some((name.to_owned(), text(value)?))).collect()
}
