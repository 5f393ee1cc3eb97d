//! The columns that packshot understands, and a person's word on which column of a file is which.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A column that packshot understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[repr(usize)]
pub enum Column {
    /// The row's canonical product key.
    Sku,
    /// What the product is called.
    Title,
    /// The product's own photo.
    ImageUrl,
    /// Brand identity for the prompt.
    Brand,
    /// Style cues for the prompt.
    StyleTags,
    /// Pictures to make.
    N,
    /// Picture size.
    Size,
    /// API quality.
    Quality,
    /// API background.
    Background,
    /// API model.
    Model,
    /// The whole prompt, instead of a rendered one.
    Prompt,
    /// Part of the fingerprint, not sent.
    Revision,
}

impl Column {
    /// Every column, in the order of the declaration.
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
    /// Without these a file is not a catalog.
    pub const REQUIRED: [Self; 3] = [Self::Sku, Self::Title, Self::ImageUrl];

    /// The standard name.
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

/// What a person said about columns: which column of the file stands for which of ours. It goes before everything that is
/// recognised.
pub type ColumnMap = BTreeMap<Column, String>;

/// A text that does not say which column is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not like sku=COLUMN; the part before the = must be one of: {names}", names = Column::ALL.map(Column::name).join(", "))]
pub struct BadMapping(String);

/// Reads `sku=COLUMN`.
pub fn parse_mapping(text: &str) -> Result<(Column, String), BadMapping> {
    let bad = || BadMapping(text.to_owned());
    let (ours, theirs) = text.split_once('=').ok_or_else(bad)?;
    let ours = normal(ours);
    let column = Column::ALL.into_iter().find(|column| normal(column.name()) == ours).ok_or_else(bad)?;
    let theirs = theirs.trim();
    if theirs.is_empty() { Err(bad()) } else { Ok((column, theirs.to_owned())) }
}

/// Reads `sku=COLUMN; title=COLUMN`.
pub fn parse_column_map(text: &str) -> Result<ColumnMap, BadMapping> {
    text.split(';').filter(|mapping| !mapping.trim().is_empty()).map(parse_mapping).collect()
}

/// A name without what people write differently: case, spaces, `_` and `-`.
pub(crate) fn normal(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).flat_map(char::to_lowercase).collect()
}
