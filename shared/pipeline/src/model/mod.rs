//! Values without I/O: what is stored, sent and shown.

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
