//! What the demo API remembers: how often each key called, what was billed, and its position in the script.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::script::{Account, Answer, Script, Then};

/// The calls that the demo API has received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// Valid generation requests.
    pub total: u64,
    /// Valid requests that were billed.
    pub billed: u64,
    /// Invalid requests: no key (401) or a bad body (400, 413).
    pub refused: u64,
    /// Valid requests by key, in ascending order.
    pub calls: Vec<Call>,
}

/// The calls of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// The `Idempotency-Key` header, or the SHA-256 of the body in lower-case hex.
    pub key: String,
    /// Number of calls.
    pub count: u64,
    /// Calls that were billed.
    pub billed: u64,
    /// Prompt of the first call.
    pub prompt: String,
    /// Image URL of the first call.
    pub image_url: String,
}

#[derive(Debug, Default)]
pub(super) struct CallLog {
    script: Script,
    /// Each key's position in each sequence; `None` is the sequence of `all`.
    steps: BTreeMap<(Option<usize>, String), usize>,
    calls: BTreeMap<String, Call>,
    pub(super) refused: u64,
}

impl CallLog {
    pub(super) fn new(script: Script) -> Self {
        Self { script, ..Self::default() }
    }

    pub(super) fn replace(&mut self, script: Script) {
        self.script = script;
        self.steps.clear();
    }

    pub(super) fn snapshot(&self) -> Calls {
        Calls {
            total: self.calls.values().map(|call| call.count).sum(),
            billed: self.calls.values().map(|call| call.billed).sum(),
            refused: self.refused,
            calls: self.calls.values().cloned().collect(),
        }
    }

    /// Counts a call and chooses its answer.
    pub(super) fn record(&mut self, key: &str, prompt: &str, image_url: &str) -> Answer {
        let answer = self.choose(key, prompt, image_url);
        let call = self.calls.entry(key.to_owned()).or_insert_with(|| Call {
            key: key.to_owned(),
            count: 0,
            billed: 0,
            prompt: prompt.to_owned(),
            image_url: image_url.to_owned(),
        });
        call.count += 1;
        call.billed += u64::from(answer.is_billed());
        answer
    }

    fn choose(&mut self, key: &str, prompt: &str, image_url: &str) -> Answer {
        if self.script.account == Account::Empty {
            return Answer::error(
                StatusCode::PAYMENT_REQUIRED,
                "insufficient_quota",
                "the account has no balance left",
            );
        }
        let matching = self.script.rules.iter().enumerate().find(|(_, rule)| rule.matches(prompt, image_url));
        let (sequence, answers, then) = match matching {
            Some((index, rule)) => (Some(index), &rule.answers, rule.then),
            None => {
                let chosen = hash(key.as_bytes()) % 100 < u64::from(self.script.fail_first_percent);
                if chosen && !self.calls.contains_key(key) {
                    return Answer::error(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "internal_error",
                        "scripted first failure",
                    );
                }
                (None, &self.script.all, Then::Succeed)
            }
        };
        let step = self.steps.entry((sequence, key.to_owned())).or_default();
        let index = match then {
            Then::Succeed => Some(*step),
            Then::Repeat => step.checked_rem(answers.len()),
        };
        *step += 1;
        index.and_then(|index| answers.get(index)).cloned().unwrap_or_default()
    }
}

/// The first 64 bits of the SHA-256.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
