//! Why a file cannot be a catalog.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a file cannot be a catalog. Ends in a summary with status `rejected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "NotACatalog"))]
pub struct CatalogError {
    /// A word for machines.
    pub code: String,
    /// What is wrong and what to do.
    pub reason: String,
    /// Physical line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Offset in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
}

impl CatalogError {
    /// Without a place.
    pub fn new(code: &str, reason: impl Into<String>) -> Self {
        Self { code: code.to_owned(), reason: reason.into(), line: None, byte: None }
    }

    /// With the line.
    #[must_use]
    pub fn on(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    /// With the line and the byte.
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
