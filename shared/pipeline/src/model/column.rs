//! The columns that packshot understands, and the column map: a user's statement of which column of a file is which.
//!
//! A column map is written `sku=COLUMN; title=COLUMN` and takes precedence over everything that is recognised.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A column that packshot understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[repr(usize)]
pub enum Column {
    /// Canonical product key.
    Sku,
    /// Product title.
    Title,
    /// Address of the product's source photo.
    ImageUrl,
    /// Brand, for the prompt.
    Brand,
    /// Style cues, for the prompt.
    StyleTags,
    /// Number of images to generate, 1 to 4.
    N,
    /// Image size, for example `1024x1024`.
    Size,
    /// The API's `quality`, for example `high`.
    Quality,
    /// The API's `background`, for example `transparent`.
    Background,
    /// The API's model name, for example `gpt-image-1`.
    Model,
    /// The whole prompt, which replaces the rendered one.
    Prompt,
    /// Part of the fingerprint, never sent to the API; a change regenerates the row.
    Revision,
}

impl Column {
    /// Every column, in declaration order.
    pub const ALL: [Self; 12] = [
        Self::Sku,
        Self::Title,
        Self::ImageUrl,
        Self::Brand,
        Self::StyleTags,
        Self::N,
        Self::Size,
        Self::Quality,
        Self::Background,
        Self::Model,
        Self::Prompt,
        Self::Revision,
    ];
    /// The columns that every catalog must have.
    pub const REQUIRED: [Self; 3] = [Self::Sku, Self::Title, Self::ImageUrl];

    /// The standard name, as in a CSV header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sku => "sku",
            Self::Title => "title",
            Self::ImageUrl => "image_url",
            Self::Brand => "brand",
            Self::StyleTags => "style_tags",
            Self::N => "n",
            Self::Size => "size",
            Self::Quality => "quality",
            Self::Background => "background",
            Self::Model => "model",
            Self::Prompt => "prompt",
            Self::Revision => "revision",
        }
    }
}

/// Maps our columns to the file's column names. Entries take precedence over recognition.
pub type ColumnMap = BTreeMap<Column, String>;

/// A text that is not a column mapping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not like sku=COLUMN; the part before the = must be one of: {names}", names = Column::ALL.map(Column::name).join(", "))]
pub struct MappingError(String);

/// Parses one mapping, `sku=COLUMN`.
pub fn parse_mapping(text: &str) -> Result<(Column, String), MappingError> {
    let bad = || MappingError(text.to_owned());
    let (ours, theirs) = text.split_once('=').ok_or_else(bad)?;
    let ours = normal(ours);
    let column = Column::ALL.into_iter().find(|column| normal(column.name()) == ours).ok_or_else(bad)?;
    let theirs = theirs.trim();
    if theirs.is_empty() { Err(bad()) } else { Ok((column, theirs.to_owned())) }
}

/// Parses a column map, `sku=COLUMN; title=COLUMN`.
pub fn parse_column_map(text: &str) -> Result<ColumnMap, MappingError> {
    text.split(';').filter(|mapping| !mapping.trim().is_empty()).map(parse_mapping).collect()
}

/// Normalises a column name for comparison: drops spaces, `_` and `-`, and lowers the case.
pub(crate) fn normal(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).flat_map(char::to_lowercase).collect()
}
