//! An images API with every answer that the contract knows, which keeps its own account of what it bills.

use std::{future::pending, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use packshot_pipeline::{
    model::request::{Fingerprint, Request},
    ports::{ApiError, Clock as _, FetchError, Generated, GeneratedImage, ImageApi},
};
use tokio::time::sleep;

use crate::{
    call::Call,
    fault::{CrashPoint, Fault},
    faulty_ports::FaultyPorts,
    random::{percent, up_to},
    state::SimState,
};

/// The signature and the header of a PNG of one pixel: the archive reads no more.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89";

/// The outcome of a call.
enum Answer {
    Images {
        inline: bool,
        fewer: bool,
    },
    Refused {
        status: u16,
        code: Option<&'static str>,
        retry_after: Option<Duration>,
    },
    NotSent,
    Misconfigured,
    /// The answer never comes.
    Silence {
        billed: bool,
    },
    Useless {
        code: &'static str,
        status: Option<u16>,
        billed: bool,
    },
}

/// Ends a call in the account, also when the caller dies.
struct InFlight {
    state: Arc<SimState>,
    fingerprint: Fingerprint,
    /// Whether the API has received the call and not answered it.
    unanswered: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.oracle(|oracle| oracle.call_ends(&self.fingerprint, self.unanswered));
    }
}

#[async_trait]
impl ImageApi for FaultyPorts {
    async fn generate(&self, request: &Request, idempotency_key: &str) -> Result<Generated, ApiError> {
        let state = &self.state;
        let fingerprint = request.fingerprint();
        let now = state.clock.now();
        state.oracle(|oracle| oracle.call_begins(&fingerprint, idempotency_key, now, self.actor.deadline));
        let mut call = InFlight { state: state.clone(), fingerprint: fingerprint.clone(), unanswered: false };
        let fault = self.begin(Call::Generate, idempotency_key).await;
        let answer = match fault {
            Some(Fault::Before) => Answer::NotSent,
            _ => choose(state, &fingerprint),
        };
        let (takes, request_id) = state.api_call();
        let bill = |billed: bool| {
            if billed {
                state.oracle(|oracle| oracle.billed(&fingerprint, &request_id));
            }
        };
        let unknown = |code, status| Err(ApiError::Unknown { code, status, detail: "simulated".into() });
        call.unanswered = true;
        let answer = match answer {
            Answer::NotSent => {
                call.unanswered = false;
                Err(ApiError::NotSent { detail: "simulated".into() })
            }
            Answer::Misconfigured => {
                call.unanswered = false;
                Err(ApiError::Misconfigured { detail: "simulated".into() })
            }
            Answer::Silence { billed } => {
                bill(billed);
                self.trace(Call::Generate, idempotency_key, "silence");
                pending().await
            }
            Answer::Useless { code, status, billed } => {
                bill(billed);
                sleep(takes).await;
                unknown(code, status)
            }
            Answer::Refused { status, code, retry_after } => {
                sleep(takes / 20).await;
                call.unanswered = false;
                let body = format!("{{\"error\":{{\"code\":{code:?}}}}}");
                Err(ApiError::Answered { status, code: code.map(str::to_owned), body, retry_after })
            }
            Answer::Images { inline, fewer } => {
                bill(true);
                sleep(takes).await;
                let n = if fewer { 1 } else { usize::from(request.n) };
                let image = |n| match inline {
                    true => GeneratedImage::Inline(Bytes::from_static(PNG)),
                    false => GeneratedImage::Url(format!("https://img.example/{request_id}/{n}.png")),
                };
                let images = (1..=n).map(image).collect();
                call.unanswered = false;
                Ok(Generated {
                    request_id: Some(request_id.clone()),
                    model_actual: Some(request.model.clone()),
                    images,
                })
            }
        };
        let answer = match fault {
            Some(Fault::After) => {
                call.unanswered = true;
                unknown("connection_lost", None)
            }
            Some(Fault::Crash(CrashPoint::After)) => {
                call.unanswered = true;
                self.crash(Call::Generate, idempotency_key, CrashPoint::After).await
            }
            _ => answer,
        };
        let outcome = match &answer {
            Ok(_) => "images".to_owned(),
            Err(error) => packshot_pipeline::generate::classify::error_code(error),
        };
        self.trace(Call::Generate, idempotency_key, &outcome);
        answer
    }

    async fn fetch(&self, url: &str, _max_bytes: usize) -> Result<Bytes, FetchError> {
        let fault = self.begin(Call::Fetch, url).await;
        let detail = "simulated".to_owned();
        let answer = match fault {
            Some(Fault::Before) => Err(FetchError::Unavailable { detail }),
            Some(Fault::After | Fault::Break) => Err(FetchError::Refused { detail }),
            Some(Fault::Crash(CrashPoint::After)) => self.crash(Call::Fetch, url, CrashPoint::After).await,
            _ => Ok(Bytes::from_static(PNG)),
        };
        self.trace(Call::Fetch, url, if answer.is_ok() { "ok" } else { "failed" });
        answer
    }
}

/// Draws the answer to a call.
fn choose(state: &SimState, fingerprint: &Fingerprint) -> Answer {
    let profile = &state.plan.api;
    let now = state.elapsed();
    let faults = now < state.plan.faults.until;
    let refused = |status, code| Answer::Refused { status, code, retry_after: None };
    state.api_chance(|rng| {
        if profile.account_outages.iter().any(|(from, to)| (*from..*to).contains(&now)) {
            return match rng.u32(0..4) {
                0 => refused(402, None),
                1 => refused(401, Some("invalid_api_key")),
                2 => Answer::Misconfigured,
                _ => refused(429, Some("insufficient_quota")),
            };
        }
        // A property of the request, and so the same at every call.
        let character =
            fingerprint.as_str().bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte)) % 100;
        if character < profile.blocked_percent {
            return refused(400, Some("moderation_blocked"));
        }
        if profile.plain {
            return Answer::Images { inline: false, fewer: false };
        }
        if !(faults && percent(rng, profile.trouble_percent)) {
            return Answer::Images { inline: percent(rng, 10), fewer: percent(rng, 5) };
        }
        match rng.u32(0..16) {
            0 => refused(500, None),
            1 => refused(503, Some("overloaded")),
            2 | 3 => {
                let limit = Duration::from_secs(10);
                let seconds = |n| Some(Duration::from_secs(n));
                let retry_after = match rng.u32(0..4) {
                    0 => None,
                    1 => seconds(1_000_000_000),
                    2 => seconds(0),
                    _ => Some(up_to(rng, limit)),
                };
                Answer::Refused { status: 429, code: Some("rate_limit_exceeded"), retry_after }
            }
            4 => Answer::NotSent,
            5 => refused(408, None),
            6 => refused(409, Some("something_new")),
            7 => Answer::Silence { billed: true },
            8 => Answer::Silence { billed: false },
            9 => Answer::Useless { code: "connection_lost", status: None, billed: true },
            10 => Answer::Useless { code: "connection_lost", status: None, billed: false },
            11 => Answer::Useless { code: "invalid_answer", status: Some(200), billed: true },
            12 => Answer::Useless { code: "no_images", status: Some(200), billed: true },
            13 => {
                Answer::Refused { status: 500, code: Some("server_error"), retry_after: Some(Duration::from_secs(3)) }
            }
            14 => Answer::Images { inline: true, fewer: false },
            _ => Answer::Images { inline: false, fewer: true },
        }
    })
}
