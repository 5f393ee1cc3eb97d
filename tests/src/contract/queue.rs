//! The contract of [`Queue`], together with the consuming side, which is the host's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use packshot_local::MemoryQueue;
use packshot_pipeline::{
    model::message::MAX_MESSAGE_BYTES,
    ports::{Delivery, Outgoing, Queue, QueueError},
};
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep},
};

/// A module of tests, one per case: `queue_contract!(memory, [], async { QueueUnderTest::new(…) })`.
#[macro_export]
macro_rules! queue_contract {
    ($adapter:ident, $attributes:tt, $make:expr) => {
        $crate::contract_cases!(queue, $adapter, $attributes, $make, [
            everything_sent_arrives_once
            bodies_arrive_as_they_were_sent
            a_message_that_was_not_deleted_comes_back
            a_delay_of_nothing_brings_a_message_back_at_once
            a_delay_keeps_a_message_away
            a_stale_receipt_touches_nothing
            a_refused_message_does_not_take_its_neighbours_along
            the_largest_message_passes
        ]);
    };
}

/// The consuming side of a queue.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// Up to ten messages that are visible now.
    async fn receive(&self) -> Vec<Delivery>;

    /// Takes a message off the queue.
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

/// Longer than anything takes on a queue that answers, in terms of the queue's own clock.
const PATIENCE: Duration = Duration::from_secs(20);

impl QueueUnderTest {
    /// A queue, its consuming side, and the visibility timeout with which it was made.
    #[must_use]
    pub fn new(queue: Arc<dyn Queue>, consumer: Arc<dyn Consumer>, visibility: Duration) -> Self {
        Self { queue, consumer, visibility }
    }

    async fn send(&self, bodies: &[&str]) {
        self.queue.send(&bodies.iter().map(|body| message(body)).collect::<Vec<_>>()).await.unwrap();
    }

    /// The next `count` deliveries.
    async fn receive(&self, count: usize) -> Vec<Delivery> {
        let began = Instant::now();
        let mut received = Vec::new();
        while received.len() < count {
            let more = self.consumer.receive().await;
            if more.is_empty() {
                assert!(began.elapsed() < PATIENCE, "{} of {count} messages came", received.len());
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

    /// Sees to it that nothing is received, now and for a while.
    async fn nothing_for(&self, time: Duration) {
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

/// One thread, so that a queue in memory may be tested on paused time.
#[must_use]
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn message(body: &str) -> Outgoing {
    Outgoing { body: body.to_owned(), attributes: BTreeMap::new() }
}

/// More than two batches: none is lost, none comes twice, and all have ids and receipts of their own.
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
    under_test.nothing_for(under_test.visibility + Duration::from_millis(300)).await;
}

/// Bodies are texts; nobody trims, escapes or normalises them. Attributes do not change them.
pub async fn bodies_arrive_as_they_were_sent(under_test: QueueUnderTest) {
    let bodies = [
        r#"{"v":1,"sku":"a\"b\\c","title":"Ünïcödé 靴 👟 \u0007"}"#,
        " \t\r\n leading and trailing \n\n",
        "<xml attr='1'>&amp; &#10; ]]></xml>",
        "\u{7f}\u{80}\u{85}\u{9f}\u{a0}\u{d7ff}\u{e000}\u{fdd0}\u{fffd}\u{10000}\u{10ffff}",
        "e\u{301} and \u{e9}, a+b%20c=d&e",
    ];
    let attributes = BTreeMap::from([("error_code", "é <&> \"".to_owned()), ("empty", String::new())]);
    let sent: Vec<Outgoing> =
        bodies.iter().map(|&body| Outgoing { body: body.to_owned(), attributes: attributes.clone() }).collect();
    under_test.queue.send(&sent).await.unwrap();
    let received: BTreeSet<String> = under_test.receive(bodies.len()).await.into_iter().map(|d| d.body).collect();
    assert_eq!(received, bodies.map(str::to_owned).into());
}

/// Until it is deleted a message comes again after its visibility timeout, and not before: as the same message, with
/// another receipt.
pub async fn a_message_that_was_not_deleted_comes_back(under_test: QueueUnderTest) {
    under_test.send(&["x"]).await;
    let first = under_test.receive_one().await;
    let received = Instant::now();
    under_test.nothing_for(under_test.visibility / 2).await;
    let second = under_test.receive_one().await;
    assert!(received.elapsed() >= under_test.visibility.mul_f64(0.9), "after {:?}", received.elapsed());
    assert_eq!((&second.id, &second.body), (&first.id, &first.body));
    assert_ne!(second.receipt, first.receipt);
    under_test.consumer.delete(&second.receipt).await;
    under_test.nothing_for(under_test.visibility + Duration::from_millis(300)).await;
}

/// `delay(0)` hands a message back.
pub async fn a_delay_of_nothing_brings_a_message_back_at_once(under_test: QueueUnderTest) {
    under_test.send(&["x"]).await;
    let first = under_test.receive_one().await;
    let handed_back = Instant::now();
    under_test.queue.delay(&first.receipt, Duration::ZERO).await.unwrap();
    assert_eq!(under_test.receive_one().await.id, first.id);
    assert!(handed_back.elapsed() < under_test.visibility.mul_f64(0.9), "after {:?}", handed_back.elapsed());
}

/// `delay(n)` counts from now, however long the queue's own timeout is; a fraction of a second is not cut off.
pub async fn a_delay_keeps_a_message_away(under_test: QueueUnderTest) {
    under_test.send(&["x"]).await;
    let first = under_test.receive_one().await;
    let delayed = Instant::now();
    let delay = under_test.visibility + Duration::from_millis(1_500);
    under_test.queue.delay(&first.receipt, delay).await.unwrap();
    under_test.nothing_for(under_test.visibility + Duration::from_millis(1_100)).await;
    assert_eq!(under_test.receive_one().await.id, first.id);
    assert!(delayed.elapsed() >= delay.mul_f64(0.95), "after {:?}", delayed.elapsed());
    // The longest that anybody may ask for, and more.
    let second = under_test.receive_one_again(&first).await;
    under_test.queue.delay(&second.receipt, Duration::MAX).await.unwrap();
    under_test.nothing_for(under_test.visibility + Duration::from_millis(300)).await;
}

impl QueueUnderTest {
    /// The next delivery, of the same message.
    async fn receive_one_again(&self, before: &Delivery) -> Delivery {
        let again = self.receive_one().await;
        assert_eq!(again.id, before.id);
        again
    }
}

/// A message that was redelivered belongs to whom it was delivered to last.
pub async fn a_stale_receipt_touches_nothing(under_test: QueueUnderTest) {
    under_test.send(&["x"]).await;
    let first = under_test.receive_one().await;
    let second = under_test.receive_one_again(&first).await;
    let received = Instant::now();
    under_test.consumer.delete(&first.receipt).await;
    // Whether this is an error is the queue's affair.
    let _ = under_test.queue.delay(&first.receipt, Duration::ZERO).await;
    let third = under_test.receive_one_again(&second).await;
    assert!(received.elapsed() >= under_test.visibility.mul_f64(0.9), "after {:?}", received.elapsed());
    under_test.consumer.delete(&third.receipt).await;
    under_test.nothing_for(under_test.visibility + Duration::from_millis(300)).await;
    let gone = under_test.queue.delay(&third.receipt, Duration::ZERO).await;
    assert!(matches!(gone, Err(QueueError::Refused { .. })), "{gone:?}");
}

/// Characters and lengths that the queue does not take: said so, and everything else is on its way.
pub async fn a_refused_message_does_not_take_its_neighbours_along(under_test: QueueUnderTest) {
    let too_long = "x".repeat(MAX_MESSAGE_BYTES + 1);
    for bad in ["\u{fffe}", "a\u{ffff}b", "\0", "\u{1}", "\u{b}", "\u{c}", "\u{1f}", "\u{1b}[0m", "", &too_long] {
        let mut messages: Vec<Outgoing> = (0..12).map(|number| message(&format!("good {number}"))).collect();
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

/// The limit is in bytes, and a message that reaches it with its attributes is taken.
pub async fn the_largest_message_passes(under_test: QueueUnderTest) {
    let attributes = BTreeMap::from([("error_code", "timeout".to_owned())]);
    let room = MAX_MESSAGE_BYTES - "error_code".len() - "String".len() - "timeout".len();
    let body = "é".repeat(room / 2) + &"x".repeat(room % 2);
    assert_eq!(body.len(), room);
    let largest = Outgoing { body, attributes };
    under_test.queue.send(&[largest.clone(), message("next"), largest]).await.unwrap();
    let received: Vec<usize> = under_test.receive(3).await.into_iter().map(|delivery| delivery.body.len()).collect();
    assert_eq!(received.iter().filter(|&&length| length == room).count(), 2);
}
