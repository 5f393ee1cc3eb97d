//! packshot's adapters: what connects the use cases to AWS and to the images API.
//!
//! The ports themselves, and what their errors promise, are described in [`packshot_pipeline::ports`]. Everything here is
//! behind a feature, so that nobody builds what only others need.

#[cfg(feature = "images")]
mod address;
#[cfg(feature = "sdk")]
pub mod clients;
pub mod clock;
#[cfg(feature = "lambda")]
pub mod config;
#[cfg(feature = "lambda")]
pub mod events;
#[cfg(feature = "images")]
pub mod images_api;
pub mod key;
#[cfg(feature = "lambda")]
pub mod metrics;
#[cfg(feature = "lambda")]
pub mod notify;
#[cfg(feature = "images")]
mod pictures;
#[cfg(feature = "sdk")]
pub mod redrive;
#[cfg(feature = "sdk")]
pub mod s3;
#[cfg(feature = "sdk")]
mod sdk_error;
#[cfg(feature = "lambda")]
pub mod secret;
#[cfg(feature = "sdk")]
pub mod sqs;
#[cfg(feature = "lambda")]
pub mod telemetry;
#[cfg(test)]
mod test_server;
#[cfg(feature = "sdk")]
pub mod trace;
pub mod unused;

/// An error with its causes in one line: libraries say "error sending request" and hide the reason one level down.
#[cfg(any(feature = "images", feature = "sdk"))]
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat the cause in their own message.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
