//! A standard queue of SQS in one process, on Tokio's clock.
//!
//! Messages are ordered by the time they become visible (`turns`). A receive moves a message to now + visibility; the receipt
//! holds the receive count, so an older receipt is stale.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use packshot_pipeline::{
    model::message::MAX_MESSAGE_BYTES,
    ports::{Delivery, OutgoingMessage, Queue, QueueError},
};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// The longest that SQS keeps a received message invisible.
const MAX_INVISIBLE: Duration = Duration::from_secs(12 * 3600);

/// A queue in memory. The same calls at the same times give the same ids, receipts and order.
pub struct MemoryQueue {
    visibility: Duration,
    redrive: Option<(u32, Arc<MemoryQueue>)>,
    capacity: usize,
    state: Mutex<State>,
    /// A message may be visible earlier than the waiting receivers expect.
    changed: Notify,
    /// A queue that was full is half empty.
    room: Notify,
}

/// When a message becomes visible, and its number: the order in which messages are received.
type Turn = (Instant, u64);

#[derive(Default)]
struct State {
    sent: u64,
    awake: bool,
    messages: BTreeMap<u64, Message>,
    /// Every message, by its turn.
    turns: BTreeMap<Turn, Phase>,
}

struct Message {
    content: OutgoingMessage,
    visible_at: Instant,
    receives: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Sent and never received yet.
    Fresh,
    /// Received; its visibility timeout is running or has passed.
    Received,
    /// Returned with a delay of its own.
    Delayed,
}

/// How many messages a queue holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// May be received now.
    pub visible: usize,
    /// Received, and the visibility timeout is running.
    pub in_flight: usize,
    /// Returned with a delay that is running.
    pub delayed: usize,
}

impl State {
    fn push(&mut self, content: OutgoingMessage, now: Instant) {
        self.sent += 1;
        self.messages.insert(self.sent, Message { content, visible_at: now, receives: 0 });
        self.turns.insert((now, self.sent), Phase::Fresh);
    }

    fn remove(&mut self, number: u64) -> Option<Message> {
        let message = self.messages.remove(&number)?;
        self.turns.remove(&(message.visible_at, number));
        Some(message)
    }

    fn move_turn(&mut self, number: u64, visible_at: Instant, phase: Phase) {
        if let Some(message) = self.messages.get_mut(&number) {
            self.turns.remove(&(message.visible_at, number));
            message.visible_at = visible_at;
            self.turns.insert((visible_at, number), phase);
        }
    }

    /// The message of a receipt, unless a newer delivery made the receipt stale.
    fn of_receipt(&self, receipt: &str) -> Option<(u64, &Message)> {
        let (number, receives) = receipt.split_once('-')?;
        let (number, receives): (u64, u32) = (number.parse().ok()?, receives.parse().ok()?);
        self.messages.get(&number).filter(|message| message.receives == receives).map(|message| (number, message))
    }
}

impl MemoryQueue {
    /// An empty queue. A message that was received `max_receives` times moves to `dead_letters` instead of being received
    /// again; without either of the two it stays until it is deleted.
    #[must_use]
    pub fn new(visibility: Duration, max_receives: Option<u32>, dead_letters: Option<Arc<MemoryQueue>>) -> Self {
        Self {
            visibility: visibility.min(MAX_INVISIBLE),
            redrive: max_receives.zip(dead_letters),
            capacity: usize::MAX,
            state: Mutex::default(),
            changed: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Limits the queue to `capacity` messages, those in flight included. [`Queue::send`] waits for room, which SQS never does.
    #[must_use]
    pub fn bounded(self, capacity: usize) -> Self {
        Self { capacity: capacity.max(1), ..self }
    }

    /// Receives up to `max` messages; waits until there is at least one, or until [`MemoryQueue::wake`].
    pub async fn receive(&self, max: usize) -> Vec<Delivery> {
        loop {
            // Registered before the look at the queue, so that no message is missed in between.
            let changed = self.changed.notified();
            let received = self.try_receive(max);
            let (next, awake) = {
                let state = self.lock();
                (state.turns.first_key_value().map(|((visible_at, _), _)| *visible_at), state.awake)
            };
            if awake || !received.is_empty() {
                return received;
            }
            match next {
                Some(visible_at) => tokio::select! {
                    // Without this, Tokio draws the order from a generator that no seed decides.
                    biased;
                    () = changed => {}
                    () = sleep_until(visible_at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Receives up to `max` messages that are visible now.
    pub fn try_receive(&self, max: usize) -> Vec<Delivery> {
        let now = Instant::now();
        let mut state = self.lock();
        let mut received = Vec::new();
        while received.len() < max {
            let Some((&(visible_at, number), _)) = state.turns.first_key_value() else { break };
            if visible_at > now {
                break;
            }
            let receives = state.messages.get(&number).map_or(0, |message| message.receives);
            if let Some((_, dead_letters)) = self.redrive.as_ref().filter(|(most, _)| receives >= *most) {
                // Under the lock of this queue, so that the message is in one of the two at every moment.
                dead_letters.push_all(state.remove(number).map(|message| message.content));
                self.signal_room(&state);
                continue;
            }
            state.move_turn(number, now + self.visibility, Phase::Received);
            if let Some(message) = state.messages.get_mut(&number) {
                message.receives += 1;
                received.push(Delivery {
                    id: format!("m{number}"),
                    body: message.content.body.clone(),
                    receipt: format!("{number}-{}", message.receives),
                });
            }
        }
        received
    }

    /// Deletes a received message. A receipt of an earlier delivery does nothing.
    pub fn delete(&self, receipt: &str) {
        let mut state = self.lock();
        if let Some((number, _)) = state.of_receipt(receipt) {
            state.remove(number);
            self.signal_room(&state);
        }
    }

    /// Ends all waiting: from now on [`MemoryQueue::receive`] returns at once, with or without messages.
    pub fn wake(&self) {
        self.lock().awake = true;
        self.changed.notify_waiters();
    }

    /// The number of messages, visible or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().messages.len()
    }

    /// Whether the queue holds no message, visible or not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many messages there are in which state.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let now = Instant::now();
        let mut depth = Depth::default();
        for (&(visible_at, _), phase) in &self.lock().turns {
            match phase {
                _ if visible_at <= now => depth.visible += 1,
                Phase::Delayed => depth.delayed += 1,
                Phase::Received | Phase::Fresh => depth.in_flight += 1,
            }
        }
        depth
    }

    /// All messages, visible or not, in the order in which they were sent.
    #[must_use]
    pub fn contents(&self) -> Vec<OutgoingMessage> {
        self.lock().messages.values().map(|message| message.content.clone()).collect()
    }

    /// Moves every visible message to another queue, as StartMessageMoveTask does, and returns their number.
    pub fn redrive_to(&self, other: &Self) -> usize {
        let now = Instant::now();
        let moved: Vec<(u64, OutgoingMessage)> = {
            let state = self.lock();
            let visible = state.turns.range(..=(now, u64::MAX));
            visible.filter_map(|(&(_, n), _)| Some((n, state.messages.get(&n)?.content.clone()))).collect()
        };
        let count = moved.len();
        let (numbers, contents): (Vec<u64>, Vec<OutgoingMessage>) = moved.into_iter().unzip();
        // One lock at a time, because the other queue may be sending its dead letters here. Added there before removed here,
        // so that no observer finds both queues empty.
        other.push_all(contents);
        let mut state = self.lock();
        for number in numbers {
            state.remove(number);
            self.signal_room(&state);
        }
        count
    }

    /// Wakes waiting senders only when half of a full queue is gone, not for every message.
    fn signal_room(&self, state: &State) {
        if state.messages.len() == self.capacity / 2 {
            self.room.notify_waiters();
        }
    }

    /// Adds as many messages as there is room for and returns their number.
    fn push_some(&self, contents: &[&OutgoingMessage]) -> usize {
        let room = self.capacity.saturating_sub(self.len()).min(contents.len());
        self.push_all(contents.iter().take(room).map(|&content| content.clone()));
        room
    }

    fn push_all(&self, contents: impl IntoIterator<Item = OutgoingMessage>) {
        let now = Instant::now();
        let mut state = self.lock();
        contents.into_iter().for_each(|content| state.push(content, now));
        drop(state);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn send(&self, messages: &[OutgoingMessage]) -> Result<(), QueueError> {
        let refused: Vec<(usize, String)> =
            messages.iter().enumerate().filter_map(|(index, message)| Some((index, refusal(message)?))).collect();
        let accepted = messages.iter().enumerate().filter(|(index, _)| refused.iter().all(|(other, _)| other != index));
        let accepted: Vec<&OutgoingMessage> = accepted.map(|(_, message)| message).collect();
        let mut rest = &accepted[..];
        loop {
            // Registered before the look at the queue, so that no room is missed.
            let room = self.room.notified();
            rest = &rest[self.push_some(rest)..];
            if rest.is_empty() {
                break;
            }
            room.await;
        }
        match refused.first() {
            None => Ok(()),
            Some((index, why)) => {
                let detail = format!("{} messages, the first is number {index}: {why}", refused.len());
                Err(QueueError::Refused { detail })
            }
        }
    }

    async fn delay(&self, receipt: &str, delay: Duration) -> Result<(), QueueError> {
        let now = Instant::now();
        let mut state = self.lock();
        let in_flight = state.of_receipt(receipt).filter(|(_, message)| message.visible_at > now);
        let Some(number) = in_flight.map(|(number, _)| number) else {
            return Err(QueueError::Refused { detail: "the message of this receipt is not in flight".into() });
        };
        state.move_turn(number, now + delay.min(MAX_INVISIBLE), Phase::Delayed);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }
}

/// Why SQS would refuse this message.
fn refusal(message: &OutgoingMessage) -> Option<String> {
    const TYPE: &str = "String";
    let attributes: usize = message.attributes.iter().map(|(name, value)| name.len() + TYPE.len() + value.len()).sum();
    let bytes = message.body.len() + attributes;
    if bytes > MAX_MESSAGE_BYTES {
        return Some(format!("{bytes} bytes, and {MAX_MESSAGE_BYTES} are allowed"));
    }
    if message.body.is_empty() {
        return Some("the body is empty".into());
    }
    let refused =
        |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    let texts = std::iter::once(&message.body).chain(message.attributes.values());
    texts.flat_map(|text| text.chars()).find(|&c| refused(c)).map(|c| format!("the character {c:?} is not allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIBILITY: Duration = Duration::from_secs(30);

    fn message(body: &str) -> OutgoingMessage {
        OutgoingMessage { body: body.to_owned(), attributes: BTreeMap::from([("error_code", "timeout".to_owned())]) }
    }

    fn bodies(deliveries: &[Delivery]) -> Vec<&str> {
        deliveries.iter().map(|delivery| &*delivery.body).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn messages_come_in_the_order_in_which_they_become_visible() {
        let queue = MemoryQueue::new(VISIBILITY, None, None);
        queue.send(&["a", "b", "c", "d"].map(message)).await.unwrap();
        let received = queue.try_receive(3);
        assert_eq!(bodies(&received), ["a", "b", "c"]);
        assert_eq!(queue.depth(), Depth { visible: 1, in_flight: 3, delayed: 0 });
        queue.delay(&received[0].receipt, Duration::from_secs(5)).await.unwrap();
        queue.delay(&received[1].receipt, Duration::from_secs(3)).await.unwrap();
        assert_eq!(queue.depth(), Depth { visible: 1, in_flight: 1, delayed: 2 });
        let mut order = Vec::new();
        for _ in 0..4 {
            let delivery = queue.receive(1).await.remove(0);
            order.push((delivery.body.clone(), delivery.receipt.clone()));
            queue.delete(&delivery.receipt);
        }
        let order: Vec<_> = order.iter().map(|(body, receipt)| (&**body, &**receipt)).collect();
        assert_eq!(order, [("d", "4-1"), ("b", "2-2"), ("a", "1-2"), ("c", "3-2")]);
        assert_eq!(queue.depth(), Depth::default());
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_never_handled_becomes_a_dead_letter() {
        let dead = Arc::new(MemoryQueue::new(VISIBILITY, None, None));
        let queue = MemoryQueue::new(VISIBILITY, Some(2), Some(dead.clone()));
        queue.send(&[message("poison")]).await.unwrap();
        for _ in 0..2 {
            assert_eq!(bodies(&queue.receive(10).await), ["poison"]);
            assert!(dead.is_empty());
        }
        tokio::time::sleep(VISIBILITY).await;
        queue.send(&[message("good")]).await.unwrap();
        assert_eq!(bodies(&queue.try_receive(10)), ["good"]);
        assert_eq!((queue.len(), dead.contents()), (1, vec![message("poison")]));

        // A person sends it back, and its receives are counted from zero.
        assert_eq!(dead.redrive_to(&queue), 1);
        assert_eq!((queue.len(), dead.len()), (2, 0));
        assert_eq!(bodies(&queue.try_receive(10)), ["poison"]);
        assert_eq!(queue.contents(), [message("good"), message("poison")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_receiver_wakes_for_every_change() {
        let queue = Arc::new(MemoryQueue::new(VISIBILITY, None, None));
        let waiting = || {
            let queue = queue.clone();
            tokio::spawn(async move { (queue.receive(10).await, Instant::now()) })
        };
        let began = Instant::now();
        let receiver = waiting();
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.send(&[message("sent")]).await.unwrap();
        let (received, at) = receiver.await.unwrap();
        assert_eq!((bodies(&received), at - began), (vec!["sent"], Duration::from_secs(1)));

        let receiver = waiting();
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.delay(&received[0].receipt, Duration::from_secs(2)).await.unwrap();
        let (received, at) = receiver.await.unwrap();
        assert_eq!(received.len(), 1);
        assert!(at - began >= Duration::from_secs(4) && at - began < Duration::from_secs(5));

        let receiver = waiting();
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.wake();
        assert_eq!(receiver.await.unwrap().0, []);
        assert_eq!(queue.receive(10).await, [], "a later receiver does not wait either");
    }

    #[tokio::test]
    async fn attributes_count_towards_the_size_and_are_checked() {
        let queue = MemoryQueue::new(VISIBILITY, None, None);
        let with = |value: String, body| OutgoingMessage { body, attributes: BTreeMap::from([("error", value)]) };
        let room = MAX_MESSAGE_BYTES - "error".len() - "String".len();
        assert_eq!(queue.send(&[with("x".repeat(99), "x".repeat(room - 99))]).await, Ok(()));
        for bad in [with("x".repeat(100), "x".repeat(room - 99)), with("\u{b}".into(), "x".into())] {
            assert!(matches!(queue.send(&[bad]).await, Err(QueueError::Refused { .. })));
        }
        assert_eq!(queue.len(), 1);
        assert!(matches!(queue.delay("nonsense", Duration::ZERO).await, Err(QueueError::Refused { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_waits_while_the_queue_is_full() {
        let queue = Arc::new(MemoryQueue::new(VISIBILITY, None, None).bounded(4));
        let sender = queue.clone();
        let sending = tokio::spawn(async move { sender.send(&["a", "b", "c", "d", "e", "f"].map(message)).await });
        let mut received = Vec::new();
        while received.len() < 6 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(queue.len() <= 4);
            let deliveries = queue.try_receive(3);
            received.extend(deliveries.iter().map(|delivery| delivery.body.clone()));
            // A received message still takes room; deleting it frees the room.
            assert_eq!(sending.is_finished(), received.len() > 4);
            deliveries.iter().for_each(|delivery| queue.delete(&delivery.receipt));
        }
        assert_eq!(received, ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(sending.await.unwrap(), Ok(()));

        // A message that becomes a dead letter makes room as well.
        let dead = Arc::new(MemoryQueue::new(VISIBILITY, None, None));
        let queue = Arc::new(MemoryQueue::new(Duration::ZERO, Some(1), Some(dead.clone())).bounded(1));
        let sender = queue.clone();
        let sending = tokio::spawn(async move { sender.send(&["poison", "good"].map(message)).await });
        assert_eq!(bodies(&queue.receive(1).await), ["poison"]);
        assert_eq!(bodies(&queue.receive(1).await), ["good"]);
        assert_eq!((sending.await.unwrap(), dead.len()), (Ok(()), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_queue_is_no_slower() {
        let queue = MemoryQueue::new(VISIBILITY, None, None);
        queue.send(&vec![message("x"); 50_000]).await.unwrap();
        let mut received = 0;
        while !queue.is_empty() {
            for delivery in queue.receive(10).await {
                received += 1;
                queue.delete(&delivery.receipt);
            }
        }
        assert_eq!(received, 50_000);
    }
}
