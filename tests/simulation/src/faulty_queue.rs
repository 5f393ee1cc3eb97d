//! The rows queue and the retry queue as one invocation uses them, with faults at every call.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use packshot_pipeline::ports::{OutgoingMessage, Queue, QueueError};

use crate::{
    call::Call,
    fault::{CrashPoint, Fault},
    faulty_ports::FaultyPorts,
    mutation::Mutation,
};

pub(crate) struct FaultyQueue {
    ports: Arc<FaultyPorts>,
    /// Sending to this queue.
    call: Call,
}

impl FaultyQueue {
    pub(crate) fn rows(ports: Arc<FaultyPorts>) -> Self {
        Self { ports, call: Call::SendRows }
    }

    pub(crate) fn retry(ports: Arc<FaultyPorts>) -> Self {
        Self { ports, call: Call::SendRetry }
    }

    /// Sends messages that no fault kept back.
    async fn send_now(&self, messages: Vec<OutgoingMessage>) -> Result<(), QueueError> {
        let (ports, state) = (&self.ports, &self.ports.state);
        match (self.call, state.plan.mutation) {
            (Call::SendRetry, Some(Mutation::RetryQueueLoses)) => Ok(()),
            (Call::SendRetry, _) => {
                state.oracle(|oracle| oracle.parked(messages.iter().map(|message| message.body.as_str())));
                state.retry.send(&messages).await
            }
            (_, Some(Mutation::CheckpointAhead)) => {
                ports.keep_messages(messages);
                Ok(())
            }
            (_, Some(Mutation::SkuCut)) => {
                state.rows.send(&messages.iter().map(without_end_of_sku).collect::<Vec<_>>()).await
            }
            _ => state.rows.send(&messages).await,
        }
    }
}

#[async_trait]
impl Queue for FaultyQueue {
    async fn send(&self, messages: &[OutgoingMessage]) -> Result<(), QueueError> {
        let fault = self.ports.begin(self.call, "").await;
        let mut unsent: Vec<usize> = match fault {
            Some(Fault::Before | Fault::Break) => (0..messages.len()).collect(),
            // Some entries in `Failed`.
            Some(Fault::Late(_) | Fault::OwnSuccess) => (0..messages.len()).filter(|n| n % 3 == 1).collect(),
            _ => Vec::new(),
        };
        let sent = (0..messages.len()).filter(|n| unsent.binary_search(n).is_err()).map(|n| messages[n].clone());
        self.send_now(sent.collect()).await?;
        match fault {
            Some(Fault::Crash(CrashPoint::After)) => self.ports.crash(self.call, "", CrashPoint::After).await,
            // The answer is lost, so that all messages count as not sent.
            Some(Fault::After) => unsent = (0..messages.len()).collect(),
            _ => {}
        }
        self.ports.trace(
            self.call,
            &format!("{} messages", messages.len()),
            if unsent.is_empty() { "ok" } else { "unsent" },
        );
        if unsent.is_empty() { Ok(()) } else { Err(QueueError::Unsent { unsent, detail: "simulated".into() }) }
    }

    async fn delay(&self, receipt: &str, delay: Duration) -> Result<(), QueueError> {
        let fault = self.ports.begin(Call::Delay, receipt).await;
        let refused = || Err(QueueError::Refused { detail: "simulated".into() });
        if fault == Some(Fault::Before) {
            self.ports.trace(Call::Delay, receipt, "failed before");
            return refused();
        }
        let outcome = self.ports.state.rows.delay(receipt, delay).await;
        match fault {
            Some(Fault::Crash(CrashPoint::After)) => self.ports.crash(Call::Delay, receipt, CrashPoint::After).await,
            Some(Fault::After) => {
                self.ports.trace(Call::Delay, receipt, "failed after");
                refused()
            }
            _ => {
                self.ports.trace(Call::Delay, receipt, if outcome.is_ok() { "ok" } else { "refused" });
                outcome
            }
        }
    }
}

/// For a planted mutation.
fn without_end_of_sku(message: &OutgoingMessage) -> OutgoingMessage {
    let mut body: serde_json::Value = serde_json::from_str(&message.body).unwrap_or_default();
    let sku = body["sku"].as_str().map(|sku| sku.chars().take(sku.chars().count() - 1).collect::<String>());
    body["sku"] = sku.into();
    OutgoingMessage { body: body.to_string(), attributes: BTreeMap::new() }
}
