//! The format that a catalog's file turned out to have: encoding, delimiter, line ending, compression.
//!
//! The reader detects it from the bytes; `job.json` and `packshot check` report it.

use serde::{Deserialize, Serialize};

/// The detected format of a file. Stored in `job.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Format {
    /// Character encoding.
    pub encoding: Encoding,
    /// The character between two columns.
    pub delimiter: char,
    /// The line ending of the first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_ending: Option<LineEnding>,
    /// Compression, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

impl Default for Format {
    /// Uncompressed UTF-8 with commas.
    fn default() -> Self {
        Self { encoding: Encoding::Utf8, delimiter: ',', line_ending: None, compression: None }
    }
}

/// A line ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LineEnding {
    /// `\n`, as on Unix.
    Lf,
    /// `\r\n`, as on Windows.
    CrLf,
    /// `\r`, as on classic Mac OS.
    Cr,
}

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Detected by the first bytes, not by the file's name.
    Gzip,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let delimiter = match self.delimiter {
            ',' => "comma".to_owned(),
            ';' => "semicolon".to_owned(),
            '\t' => "tab".to_owned(),
            other => format!("`{other}`"),
        };
        write!(f, "{}, {delimiter}-separated", self.encoding.name())?;
        if self.compression.is_some() { f.write_str(", gzip") } else { Ok(()) }
    }
}

/// A character encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16, little endian, by its byte order mark.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, big endian, by its byte order mark.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// Windows-1252 ("ANSI"), a superset of Latin-1: assumed for a file that is not UTF-8.
    #[serde(rename = "windows-1252")]
    Windows1252,
}

impl Encoding {
    /// The usual name, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Utf16Le => "utf-16le",
            Self::Utf16Be => "utf-16be",
            Self::Windows1252 => "windows-1252",
        }
    }
}
