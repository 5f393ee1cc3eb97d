//! The [`Notifier`] port over SNS: e-mail subscribers get readable text, every other protocol gets JSON. Message attributes let
//! a subscription filter by status and catalog.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_sns::{Client, types::MessageAttributeValue};
use packshot_pipeline::{
    model::notification::Notification,
    ports::{Notifier, NotifyError},
};
use serde_json::json;

use crate::sdk_error::Failure;

/// SNS accepts subjects of fewer than 100 characters.
const SUBJECT_CHARACTERS: usize = 99;

/// One topic; SNS delivers to its subscribers.
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
impl Notifier for SnsTopic {
    async fn publish(&self, notification: &Notification) -> Result<(), NotifyError> {
        self.client
            .publish()
            .topic_arn(&self.arn)
            .subject(subject(notification))
            .message_structure("json")
            .message(message(notification))
            .set_message_attributes(Some(attributes(notification)))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| {
                let failure = Failure::of(&error);
                if failure.is_transient() {
                    NotifyError::Unsent { detail: failure.into_detail() }
                } else {
                    NotifyError::Refused { detail: failure.into_detail() }
                }
            })
    }
}

/// The message per protocol, as `MessageStructure: json` asks for.
fn message(notification: &Notification) -> String {
    let json = packshot_pipeline::model::json::to_string(notification);
    json!({ "default": json, "email": notification.text() }).to_string()
}

/// The subject line, within what SNS accepts: printable ASCII of limited length that does not begin with a space.
fn subject(notification: &Notification) -> String {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    notification.subject().chars().map(plain).take(SUBJECT_CHARACTERS).collect()
}

/// The attributes that a filter policy of a subscription can use.
fn attributes(notification: &Notification) -> HashMap<String, MessageAttributeValue> {
    let text = |text: String| MessageAttributeValue::builder().data_type("String").string_value(text).build().ok();
    let attributes =
        [("status", notification.status.as_str().to_owned()), ("catalog", notification.catalog.to_string())];
    attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), text(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn notification(catalog: &str) -> Notification {
        let value = json!({
            "v": 1, "job": "0123456789abcdef", "catalog": catalog, "status": "complete", "bucket": "b", "rows": 1, "completed": 1,
            "failed": 0, "rows_rejected": 0, "images": 4, "calls": 1, "retries": 0, "reused": 0, "unknown_outcomes": 0,
            "latency_ms": 1, "manifest": "m", "summary": "s", "ended_at": "2026-03-01T00:00:00Z"
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_subject_is_valid_for_sns() {
        assert_eq!(subject(&notification("shoes")), "packshot: complete (1 of 1): shoes");
        assert_eq!(subject(&notification("Frühling\n2026")), "packshot: complete (1 of 1): Fr?hling?2026");
        assert_eq!(subject(&notification(&"long/".repeat(100))).len(), 99);
    }

    #[test]
    fn the_default_is_json_and_email_is_text() {
        let message: Value = serde_json::from_str(&message(&notification("shoes"))).unwrap();
        let default: Notification = serde_json::from_str(message["default"].as_str().unwrap()).unwrap();
        assert_eq!(default, notification("shoes"));
        assert_eq!(message["email"], notification("shoes").text());
    }
}
