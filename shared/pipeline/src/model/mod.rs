//! Values without I/O: everything that packshot stores, sends or reports.
//!
//! A value knows its JSON, its key in the bucket and its own arithmetic. Nothing here reads a clock, an object or a queue, and
//! nothing here imports another module of the crate.

pub mod catalog_error;
pub mod column;
pub mod defaults;
pub mod error_class;
pub mod etag;
pub mod event;
pub mod format;
pub mod job;
pub mod json;
pub mod keys;
pub mod message;
pub mod notification;
pub mod request;
pub mod result;
pub mod spreadsheet;
pub mod summary;
pub mod text;
pub(crate) mod vendor_prompt;
