//! From the bytes of a file to the rows of a catalog.
//!
//! ```text
//! bytes ─▶ text_stream (signature, gzip, decode) ─▶ dialect ─▶ records ─▶ columns ─▶ validate ─▶ request
//! ```
//!
//! [`reader`] does everything up to the records in one pass. [`columns`] recognises which column is which. [`validate`] turns a
//! record into a request, with the [`prompt`], or into the reason why the row is rejected.

pub mod columns;
mod decode;
mod dialect;
mod gzip;
pub mod prompt;
mod read_error;
pub mod reader;
pub mod records;
mod signature;
mod text_stream;
pub mod validate;
