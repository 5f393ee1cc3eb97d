//! The error of a whole file, with its place in the file.
//!
//! Reading and validating produce it; `packshot check` prints it, and the splitter writes it into the summary of a rejected
//! job.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a file cannot be a catalog. The job gets a summary with status `rejected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "NotACatalog"))]
pub struct CatalogError {
    /// Machine-readable code, for example `missing_column`.
    pub code: String,
    /// What is wrong and what to do about it, for people.
    pub reason: String,
    /// Physical line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Byte offset in the unpacked, decoded text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
}

impl CatalogError {
    /// Creates an error that names no place in the file.
    pub fn new(code: &str, reason: impl Into<String>) -> Self {
        Self { code: code.to_owned(), reason: reason.into(), line: None, byte: None }
    }

    /// Adds the physical line.
    #[must_use]
    pub fn on(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    /// Adds the physical line and the byte offset.
    #[must_use]
    pub fn at(self, line: u64, byte: u64) -> Self {
        Self { byte: Some(byte), ..self.on(line) }
    }
}

impl std::error::Error for CatalogError {}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.reason)
    }
}
