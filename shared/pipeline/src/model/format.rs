//! How a catalog's file is written.

use serde::{Deserialize, Serialize};

/// How a file turned out to be written. Stands in `job.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Format {
    /// How it writes its characters.
    pub encoding: Encoding,
    /// What parts its columns.
    pub delimiter: char,
    /// What ends its first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_ending: Option<LineEnding>,
    /// How it is packed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

impl Default for Format {
    /// The plainest CSV.
    fn default() -> Self {
        Self { encoding: Encoding::Utf8, delimiter: ',', line_ending: None, compression: None }
    }
}

/// What ends a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LineEnding {
    /// Unix.
    Lf,
    /// Windows.
    CrLf,
    /// The Mac of old.
    Cr,
}

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// By its first bytes, whatever its name.
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

/// How a file writes its characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Encoding {
    /// With or without a byte order mark.
    #[serde(rename = "utf-8")]
    Utf8,
    /// Little endian, by its byte order mark.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// Big endian, by its byte order mark.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// What is not UTF-8: the "ANSI" of Windows, a superset of Latin-1.
    #[serde(rename = "windows-1252")]
    Windows1252,
}

impl Encoding {
    /// Its usual name.
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
