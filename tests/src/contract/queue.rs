//! The contract of [`Queue`]. The port only sends and delays; the host receives and deletes, here through [`Consumer`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use packshot_local::MemoryQueue;
use packshot_pipeline::{
    model::message::MAX_MESSAGE_BYTES,
    ports::{Delivery, OutgoingMessage, Queue, QueueError},
};
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep},
};

/// Expands to a module with one test per case: `queue_contract!(memory, [], async { QueueUnderTest::new(…) })`.
#[macro_export]
macro_rules! queue_contract {
    ($adapter:ident, $attributes:tt, $make:expr) => {
        $crate::contract_cases!(queue, $adapter, $attributes, $make, [
            everything_sent_arrives_once
            bodies_arrive_as_they_were_sent
            a_message_that_was_not_deleted_is_delivered_again
            a_delay_of_zero_returns_a_message_at_once
            a_delay_hides_a_message
            a_stale_receipt_has_no_effect
            a_refused_message_does_not_affect_the_others
            the_largest_message_is_accepted
        ]);
    };
}

/// The consuming side of a queue.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// Receives up to ten messages that are visible now.
    async fn receive(&self) -> Vec<Delivery>;

    /// Deletes a message.
    async fn delete(&self, receipt: &str);
}

#[async_trait]
impl Consumer for MemoryQueue {
    async fn receive(&self) -> Vec<Delivery> {
        self.try_receive(10)
    }

    async fn delete(&self, receipt: &str) {
        MemoryQueue::delete(self, receipt);
    }
}

/// An empty queue for one case.
pub struct QueueUnderTest {
    queue: Arc<dyn Queue>,
    consumer: Arc<dyn Consumer>,
    visibility: Duration,
}

/// Limits the wait for a message, by the queue's own clock. No delivery takes this long.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(20);

impl QueueUnderTest {
    /// A queue, its consuming side, and its visibility timeout.
    #[must_use]
    pub fn new(queue: Arc<dyn Queue>, consumer: Arc<dyn Consumer>, visibility: Duration) -> Self {
        Self { queue, consumer, visibility }
    }

    async fn send(&self, bodies: &[&str]) {
        self.queue.send(&bodies.iter().map(|body| message(body)).collect::<Vec<_>>()).await.unwrap();
    }

    /// Waits for the next `count` deliveries.
    async fn receive(&self, count: usize) -> Vec<Delivery> {
        let began = Instant::now();
        let mut received = Vec::new();
        while received.len() < count {
            let more = self.consumer.receive().await;
            if more.is_empty() {
                assert!(began.elapsed() < RECEIVE_TIMEOUT, "{} of {count} messages arrived", received.len());
                sleep(Duration::from_millis(20)).await;
            }
            received.extend(more);
        }
        received
    }

    async fn receive_one(&self) -> Delivery {
        let mut received = self.receive(1).await;
        assert_eq!(received.len(), 1, "{received:?}");
        received.remove(0)
    }

    /// Fails if a message arrives within this time.
    async fn assert_nothing_for(&self, time: Duration) {
        let began = Instant::now();
        loop {
            assert_eq!(self.consumer.receive().await, []);
            if began.elapsed() >= time {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Has one thread, so that a queue in memory can be tested on paused time.
#[must_use]
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn message(body: &str) -> OutgoingMessage {
    OutgoingMessage { body: body.to_owned(), attributes: BTreeMap::new() }
}

/// Of more than two batches, no message is lost or delivered twice, and ids and receipts are unique.
pub async fn everything_sent_arrives_once(under_test: QueueUnderTest) {
    under_test.queue.send(&[]).await.unwrap();
    let bodies: Vec<String> = (0..25).map(|number| format!("message {number}")).collect();
    under_test.send(&bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut received = BTreeMap::new();
    let (mut ids, mut receipts) = (BTreeSet::new(), BTreeSet::new());
    while received.len() < bodies.len() {
        for delivery in under_test.receive(1).await {
            under_test.consumer.delete(&delivery.receipt).await;
            *received.entry(delivery.body).or_insert(0) += 1;
            ids.insert(delivery.id);
            receipts.insert(delivery.receipt);
        }
    }
    assert_eq!(received, bodies.into_iter().map(|body| (body, 1)).collect());
    assert_eq!((ids.len(), receipts.len()), (25, 25));
    under_test.assert_nothing_for(under_test.visibility + Duration::from_millis(300)).await;
}

/// A queue does not trim, escape or normalise bodies. Attributes do not change them.
pub async fn bodies_arrive_as_they_were_sent(under_test: QueueUnderTest) {
    let bodies = [
        r#"{"v":1,"sku":"a\"b\\c","title":"Ünïcödé 靴 👟 \u0007"}"#,
        " \t\r\n leading and trailing \n\n",
        "<xml attr='1'>&amp; &#10; ]]></xml>",
        "\u{7f}\u{80}\u{85}\u{9f}\u{a0}\u{d7ff}\u{e000}\u{fdd0}\u{fffd}\u{10000}\u{10ffff}",
        "e\u{301} and \u{e9}, a+b%20c=d&e",
    ];
    let attributes = BTreeMap::from([("error_code", "é <&> \"".to_owned()), ("empty", String::new())]);
    let sent: Vec<OutgoingMessage> =
        bodies.iter().map(|&body| OutgoingMessage { body: body.to_owned(), attributes: attributes.clone() }).collect();
    under_test.queue.send(&sent).await.unwrap();
    let received: BTreeSet<String> = under_test.receive(bodies.len()).await.into_iter().map(|d| d.body).collect();
    assert_eq!(received, bodies.map(str::to_owned).into());
}

/// A message that is not deleted is delivered again after its visibility timeout, not before, with the same id and another
/// receipt.
pub async fn a_message_that_was_not_deleted_is_delivered_again(under_test: QueueUnderTest) {
    under_test.send(&["x"]).await;
    let first = under_test.receive_one().await;
    let received = Instant::now();
    under_test.assert_nothing_for(under_test.visibility / 2).await;
    let second = under_test.receive_one().await;
    assert!(received.elapsed() >= under_test.visibility.mul_f64(0.9), "after {:?}", received.elapsed());
    assert_eq!((&second.id, &second.body), (&first.id, &first.body));
    assert_ne!(second.receipt, first.receipt);
    under_test.consumer.delete(&second.receipt).await;
    under_test.assert_nothing_for(under_test.visibility + Duration::from_millis(300)).await;
}

/// `delay(0)` returns a message to the queue.
pub async fn a_delay_of_zero_returns_a_message_at_once(under_test: QueueUnderTest) {
    under_test.send(&["x"]).await;
    let first = under_test.receive_one().await;
    let returned = Instant::now();
    under_test.queue.delay(&first.receipt, Duration::ZERO).await.unwrap();
    assert_eq!(under_test.receive_one().await.id, first.id);
    assert!(returned.elapsed() < under_test.visibility.mul_f64(0.9), "after {:?}", returned.elapsed());
}

/// `delay(n)` counts from now, also if it is longer than the queue's own timeout. A fraction of a second is not cut off.
pub async fn a_delay_hides_a_message(under_test: QueueUnderTest) {
    under_test.send(&["x"]).await;
    let first = under_test.receive_one().await;
    let delayed = Instant::now();
    let delay = under_test.visibility + Duration::from_millis(1_500);
    under_test.queue.delay(&first.receipt, delay).await.unwrap();
    under_test.assert_nothing_for(under_test.visibility + Duration::from_millis(1_100)).await;
    assert_eq!(under_test.receive_one().await.id, first.id);
    assert!(delayed.elapsed() >= delay.mul_f64(0.95), "after {:?}", delayed.elapsed());
    // More than the longest delay that a queue supports.
    let second = under_test.receive_one_again(&first).await;
    under_test.queue.delay(&second.receipt, Duration::MAX).await.unwrap();
    under_test.assert_nothing_for(under_test.visibility + Duration::from_millis(300)).await;
}

impl QueueUnderTest {
    /// Receives the next delivery, which must be of the same message.
    async fn receive_one_again(&self, before: &Delivery) -> Delivery {
        let again = self.receive_one().await;
        assert_eq!(again.id, before.id);
        again
    }
}

/// Only the receipt of the latest delivery acts on a message.
pub async fn a_stale_receipt_has_no_effect(under_test: QueueUnderTest) {
    under_test.send(&["x"]).await;
    let first = under_test.receive_one().await;
    let second = under_test.receive_one_again(&first).await;
    let received = Instant::now();
    under_test.consumer.delete(&first.receipt).await;
    // A queue may answer with an error or not.
    let _ = under_test.queue.delay(&first.receipt, Duration::ZERO).await;
    let third = under_test.receive_one_again(&second).await;
    assert!(received.elapsed() >= under_test.visibility.mul_f64(0.9), "after {:?}", received.elapsed());
    under_test.consumer.delete(&third.receipt).await;
    under_test.assert_nothing_for(under_test.visibility + Duration::from_millis(300)).await;
    let gone = under_test.queue.delay(&third.receipt, Duration::ZERO).await;
    assert!(matches!(gone, Err(QueueError::Refused { .. })), "{gone:?}");
}

/// `send` reports unsupported characters and lengths, and sends all other messages.
pub async fn a_refused_message_does_not_affect_the_others(under_test: QueueUnderTest) {
    let too_long = "x".repeat(MAX_MESSAGE_BYTES + 1);
    for bad in ["\u{fffe}", "a\u{ffff}b", "\0", "\u{1}", "\u{b}", "\u{c}", "\u{1f}", "\u{1b}[0m", "", &too_long] {
        let mut messages: Vec<OutgoingMessage> = (0..12).map(|number| message(&format!("good {number}"))).collect();
        messages[5].body = bad.to_owned();
        let sent = under_test.queue.send(&messages).await;
        assert!(matches!(sent, Err(QueueError::Refused { .. })), "{bad:.20}: {sent:?}");
        let mut bodies = BTreeSet::new();
        for delivery in under_test.receive(11).await {
            under_test.consumer.delete(&delivery.receipt).await;
            bodies.insert(delivery.body);
        }
        let good = (0..12).filter(|&number| number != 5).map(|number| format!("good {number}"));
        assert_eq!(bodies, good.collect());
        assert_eq!(under_test.consumer.receive().await, []);
    }
}

/// The limit is in bytes and includes the attributes.
pub async fn the_largest_message_is_accepted(under_test: QueueUnderTest) {
    let attributes = BTreeMap::from([("error_code", "timeout".to_owned())]);
    let room = MAX_MESSAGE_BYTES - "error_code".len() - "String".len() - "timeout".len();
    let body = "é".repeat(room / 2) + &"x".repeat(room % 2);
    assert_eq!(body.len(), room);
    let largest = OutgoingMessage { body, attributes };
    under_test.queue.send(&[largest.clone(), message("next"), largest]).await.unwrap();
    let received: Vec<usize> = under_test.receive(3).await.into_iter().map(|delivery| delivery.body.len()).collect();
    assert_eq!(received.iter().filter(|&&length| length == room).count(), 2);
}
