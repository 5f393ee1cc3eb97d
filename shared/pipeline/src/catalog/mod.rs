//! From the bytes of a file to the rows of a catalog.
//!
//! ```text
//! bytes ─▶ signature ─▶ gzip ─▶ decode ─▶ records ─▶ columns ─▶ validate ─▶ request
//! ```
//!
//! [`reader`] runs the first four steps in one pass; [`columns`] finds out which column is which; [`validate`] turns a
//! record into a request, with the [`prompt`], or into the reason why not.

pub mod columns;
mod decode;
mod gzip;
pub mod prompt;
pub mod reader;
pub mod records;
mod signature;
pub mod validate;
