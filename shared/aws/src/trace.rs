//! The X-Ray trace that work belongs to, carried across the queues in the attribute that SQS keeps for it, so that a row can be
//! followed from the splitter through the retry queue to its result.

use aws_sdk_sqs::types::{MessageSystemAttributeNameForSends, MessageSystemAttributeValue};
use tracing::Instrument as _;

/// The attribute's name in a received message.
pub const ATTRIBUTE: &str = "AWSTraceHeader";

tokio::task_local! {
    static HEADER: String;
}

/// Does something as part of a trace: what it sends carries the trace on, and what it logs says so.
pub async fn within<F: Future>(header: Option<String>, what: F) -> F::Output {
    let Some(header) = header.filter(|header| !header.is_empty()) else { return what.await };
    let span = tracing::error_span!("trace", trace_id = id(&header));
    HEADER.scope(header, what.instrument(span)).await
}

/// The id in a header: `Root=1-…;Parent=…;Sampled=1`.
fn id(header: &str) -> &str {
    header.split(';').find_map(|part| part.trim().strip_prefix("Root=")).unwrap_or(header)
}

/// The attribute for a message that is sent now.
pub(crate) fn attribute() -> Option<(MessageSystemAttributeNameForSends, MessageSystemAttributeValue)> {
    let header = HEADER.try_with(Clone::clone).ok()?;
    let value = MessageSystemAttributeValue::builder().data_type("String").string_value(header).build().ok()?;
    Some((MessageSystemAttributeNameForSends::AwsTraceHeader, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_message_has_its_own_trace_and_a_message_without_one_has_its_surroundings() {
        let header = || attribute().map(|(_, value)| value.string_value.unwrap());
        assert_eq!(header(), None);
        let traced = |root: &str| Some(format!("Root={root};Sampled=1"));
        within(traced("1-a"), async {
            let inner = within(traced("1-b"), async {
                tokio::task::yield_now().await;
                header()
            });
            let (inner, outer, none) = futures::join!(inner, async { header() }, within(None, async { header() }));
            assert_eq!((inner, outer, none), (traced("1-b"), traced("1-a"), traced("1-a")));
        })
        .await;
        assert_eq!(
            id("Parent=x; Root=1-67891233-abcdef012345678912345678;Sampled=1"),
            "1-67891233-abcdef012345678912345678"
        );
    }
}
