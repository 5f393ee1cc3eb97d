//! Which column of the file means what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{intake::Record, job::NotACatalog};

/// A column that packshot understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// The header of a catalog, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Every column's name as it stands in the file, made unique.
    pub names: Vec<String>,
    /// Where each column that packshot understands stands in the record.
    index: [Option<usize>; Column::ALL.len()],
}

impl Columns {
    /// Reads a header.
    pub fn from_header(header: &Record<'_>) -> Result<Self, NotACatalog> {
        let mut names = Vec::with_capacity(header.len());
        let mut index = [None; Column::ALL.len()];
        let mut seen = BTreeMap::new();
        for (position, field) in header.fields().enumerate() {
            let name = field.trim();
            let known = Column::ALL.into_iter().find(|column| column.name().eq_ignore_ascii_case(name));
            if let Some(column) = known
                && index[column as usize].replace(position).is_some()
            {
                return Err(NotACatalog::new(
                    "duplicate_column",
                    format!("the column `{}` stands in the header twice; keep one of them", column.name()),
                )
                .at(header.line, 0));
            }
            // Columns that are only kept may repeat; failed.csv must still be able to name each.
            let repeats = seen.entry(name).and_modify(|count| *count += 1).or_insert(1u32);
            names.push(if *repeats == 1 { name.to_owned() } else { format!("{name} ({repeats})") });
        }
        let columns = Self { names, index };
        let missing: Vec<_> =
            Column::REQUIRED.into_iter().filter(|&c| columns.position(c).is_none()).map(Column::name).collect();
        if missing.is_empty() {
            return Ok(columns);
        }
        Err(NotACatalog::new(
            "missing_column",
            format!(
                "the header has no column `{}`; it has: {}. The first line must name at least sku, title and image_url, \
                 separated by commas",
                missing.join("`, `"),
                columns.names.join(", ")
            ),
        )
        .at(header.line, 0))
    }

    /// Where a column stands.
    #[must_use]
    pub fn position(&self, column: Column) -> Option<usize> {
        self.index[column as usize]
    }

    /// A field of a row, trimmed; empty where the file has no such column.
    #[must_use]
    pub fn get<'a>(&self, record: &Record<'a>, column: Column) -> &'a str {
        self.position(column).and_then(|index| record.get(index)).unwrap_or("").trim()
    }

    /// What was recognised: standard name → name in the file.
    #[must_use]
    pub fn mapping(&self) -> BTreeMap<String, String> {
        Column::ALL
            .into_iter()
            .filter_map(|column| Some((column.name().to_owned(), self.names[self.position(column)?].clone())))
            .collect()
    }
}
