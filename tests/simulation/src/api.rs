//! An images API that does everything the contract knows of, and keeps its own account.

use std::{future::pending, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use packshot_pipeline::{
    model::request::{Fingerprint, Request},
    ports::{ApiError, Clock as _, FetchError, Generated, GeneratedImage, ImageApi},
};
use tokio::time::sleep;

use super::{
    plan::{Moment, percent, up_to},
    wire::{Call, Fault, Wire},
    world::World,
};

/// The signature and the header of a PNG of one pixel: all that the archive looks at.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89";

/// How a call goes.
enum Answer {
    Pictures {
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
    /// Nothing ever comes back.
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
    world: Arc<World>,
    fingerprint: Fingerprint,
    /// Whether the API has it, and has not answered.
    sent: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.world.oracle(|oracle| oracle.call_ends(&self.fingerprint, self.sent));
    }
}

#[async_trait]
impl ImageApi for Wire {
    async fn generate(&self, request: &Request, idempotency_key: &str) -> Result<Generated, ApiError> {
        let world = &self.world;
        let fingerprint = request.fingerprint();
        let now = world.clock.now();
        world.oracle(|oracle| oracle.call_begins(&fingerprint, idempotency_key, now, self.actor.deadline));
        let mut call = InFlight { world: world.clone(), fingerprint: fingerprint.clone(), sent: false };
        let fault = self.way(Call::Generate, idempotency_key).await;
        let answer = match fault {
            Some(Fault::Before) => Answer::NotSent,
            _ => choose(world, &fingerprint),
        };
        let (takes, request_id) = world.api_call();
        let bill = |billed: bool| {
            if billed {
                world.oracle(|oracle| oracle.billed(&fingerprint, &request_id));
            }
        };
        let unknown = |code, status| Err(ApiError::Unknown { code, status, detail: "simulated".into() });
        call.sent = true;
        let answer = match answer {
            Answer::NotSent => {
                call.sent = false;
                Err(ApiError::NotSent { detail: "simulated".into() })
            }
            Answer::Misconfigured => {
                call.sent = false;
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
                call.sent = false;
                let body = format!("{{\"error\":{{\"code\":{code:?}}}}}");
                Err(ApiError::Answered { status, code: code.map(str::to_owned), body, retry_after })
            }
            Answer::Pictures { inline, fewer } => {
                bill(true);
                sleep(takes).await;
                let n = if fewer { 1 } else { usize::from(request.n) };
                let picture = |n| match inline {
                    true => GeneratedImage::Inline(Bytes::from_static(PNG)),
                    false => GeneratedImage::Url(format!("https://img.example/{request_id}/{n}.png")),
                };
                let images = (1..=n).map(picture).collect();
                call.sent = false;
                Ok(Generated {
                    request_id: Some(request_id.clone()),
                    model_actual: Some(request.model.clone()),
                    images,
                })
            }
        };
        let answer = match fault {
            Some(Fault::After) => {
                call.sent = true;
                unknown("connection_lost", None)
            }
            Some(Fault::Die(Moment::After)) => {
                call.sent = true;
                self.die(Call::Generate, idempotency_key, "died after").await
            }
            _ => answer,
        };
        let outcome = match &answer {
            Ok(_) => "pictures".to_owned(),
            Err(error) => packshot_pipeline::generate::classify::error_code(error),
        };
        self.trace(Call::Generate, idempotency_key, &outcome);
        answer
    }

    async fn fetch(&self, url: &str, _max_bytes: usize) -> Result<Bytes, FetchError> {
        let fault = self.way(Call::Fetch, url).await;
        let detail = "simulated".to_owned();
        let answer = match fault {
            Some(Fault::Before) => Err(FetchError::Unavailable { detail }),
            Some(Fault::After | Fault::Break) => Err(FetchError::Refused { detail }),
            Some(Fault::Die(Moment::After)) => self.die(Call::Fetch, url, "died after").await,
            _ => Ok(Bytes::from_static(PNG)),
        };
        self.trace(Call::Fetch, url, if answer.is_ok() { "ok" } else { "failed" });
        answer
    }
}

fn choose(world: &World, fingerprint: &Fingerprint) -> Answer {
    let weather = &world.plan.weather;
    let gone = world.clock.began.elapsed();
    let trouble = gone < world.plan.faults.until;
    let refused = |status, code| Answer::Refused { status, code, retry_after: None };
    world.api_chance(|rng| {
        if weather.broke.iter().any(|(from, to)| (*from..*to).contains(&gone)) {
            return match rng.u32(0..4) {
                0 => refused(402, None),
                1 => refused(401, Some("invalid_api_key")),
                2 => Answer::Misconfigured,
                _ => refused(429, Some("insufficient_quota")),
            };
        }
        // A property of the request, the same at every call.
        let character =
            fingerprint.as_str().bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte)) % 100;
        if character < weather.blocked {
            return refused(400, Some("moderation_blocked"));
        }
        if weather.plain {
            return Answer::Pictures { inline: false, fewer: false };
        }
        if !(trouble && percent(rng, weather.trouble)) {
            return Answer::Pictures { inline: percent(rng, 10), fewer: percent(rng, 5) };
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
            14 => Answer::Pictures { inline: true, fewer: false },
            _ => Answer::Pictures { inline: false, fewer: true },
        }
    })
}
