//! Carries the X-Ray trace across the queues, so that a row can be followed from the splitter through the retry queue to its
//! result. The trace header is a task-local value: [`within`] sets it for a future, and the queue adapter copies it into the
//! message attribute that SQS reserves for it.

use aws_sdk_sqs::types::{MessageSystemAttributeNameForSends, MessageSystemAttributeValue};
use tracing::Instrument as _;

/// The name of the attribute in a received message.
pub const ATTRIBUTE: &str = "AWSTraceHeader";

tokio::task_local! {
    static HEADER: String;
}

/// Runs `work` as part of a trace: the messages it sends carry the header, and the lines it logs have `trace_id`. Without a
/// header, `work` stays in the surrounding trace.
pub async fn within<F: Future>(header: Option<String>, work: F) -> F::Output {
    let Some(header) = header.filter(|header| !header.is_empty()) else { return work.await };
    let span = tracing::error_span!("trace", trace_id = id(&header));
    HEADER.scope(header, work.instrument(span)).await
}

/// The trace id in a header of the form `Root=1-…;Parent=…;Sampled=1`.
fn id(header: &str) -> &str {
    header.split(';').find_map(|part| part.trim().strip_prefix("Root=")).unwrap_or(header)
}

/// The attribute for a message of the current trace; `None` outside a trace.
pub(crate) fn attribute() -> Option<(MessageSystemAttributeNameForSends, MessageSystemAttributeValue)> {
    let header = HEADER.try_with(Clone::clone).ok()?;
    let value = MessageSystemAttributeValue::builder().data_type("String").string_value(header).build().ok()?;
    Some((MessageSystemAttributeNameForSends::AwsTraceHeader, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_has_its_own_trace_or_the_surrounding_one() {
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
