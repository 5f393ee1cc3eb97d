//! Notices over SNS: short readable mail for people, JSON for everything else.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_sns::{Client, types::MessageAttributeValue};
use packshot_pipeline::{
    model::notification::Notice,
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
    let machines = packshot_pipeline::model::json::to_string(notice);
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn notice(catalog: &str) -> Notice {
        let value = json!({
            "v": 1, "job": "0123456789abcdef", "catalog": catalog, "status": "complete", "bucket": "b", "rows": 1, "completed": 1,
            "failed": 0, "rows_rejected": 0, "images": 4, "calls": 1, "retries": 0, "reused": 0, "unknown_outcomes": 0,
            "latency_ms": 1, "manifest": "m", "summary": "s", "ended_at": "2026-03-01T00:00:00Z"
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn sns_takes_every_subject() {
        assert_eq!(subject(&notice("shoes")), "packshot: complete (1 of 1): shoes");
        assert_eq!(subject(&notice("Frühling\n2026")), "packshot: complete (1 of 1): Fr?hling?2026");
        assert_eq!(subject(&notice(&"long/".repeat(100))).len(), 99);
    }

    #[test]
    fn machines_get_json_and_people_get_text() {
        let message: Value = serde_json::from_str(&message(&notice("shoes"))).unwrap();
        let machines: Notice = serde_json::from_str(message["default"].as_str().unwrap()).unwrap();
        assert_eq!(machines, notice("shoes"));
        assert_eq!(message["email"], notice("shoes").text());
    }
}
