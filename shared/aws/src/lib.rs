//! The adapters that connect packshot's use cases to AWS and to the images API, and the conversion of AWS events.
//!
//! [`packshot_pipeline::ports`] defines the ports and what their errors promise; each module here implements one of them or
//! feeds the functions that do. A Cargo feature guards each group, so that the command-line tool does not build what only the
//! Lambda functions use.

pub mod api_key;
#[cfg(feature = "sdk")]
pub mod clients;
pub mod clock;
#[cfg(feature = "lambda")]
pub mod config;
#[cfg(feature = "lambda")]
pub mod emf;
#[cfg(any(feature = "images", feature = "sdk"))]
mod error_chain;
#[cfg(feature = "lambda")]
pub mod events;
#[cfg(feature = "images")]
pub mod images_api;
#[cfg(feature = "lambda")]
pub mod metrics;
#[cfg(feature = "sdk")]
pub mod redrive;
#[cfg(feature = "sdk")]
pub mod s3;
#[cfg(feature = "sdk")]
mod sdk_error;
#[cfg(feature = "lambda")]
pub mod secrets_manager;
#[cfg(feature = "lambda")]
pub mod sns;
#[cfg(feature = "sdk")]
pub mod sqs;
#[cfg(feature = "lambda")]
pub mod telemetry;
#[cfg(test)]
mod test_server;
#[cfg(feature = "sdk")]
pub mod trace;
pub mod unused;
