//! The systems that an export is for: their columns and how they name a product.

use clap::ValueEnum;
use packshot_pipeline::model::result::Completed;

/// The API makes at most four images of a row.
const IMAGES: usize = 4;
const IMAGE_COLUMNS: [&str; IMAGES] = ["image_1", "image_2", "image_3", "image_4"];

/// A system that imports product images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// Product CSV of Shopify.
    Shopify,
    /// Product import of Akeneo.
    Akeneo,
    /// Merchant feed of Google.
    Google,
    /// One line per product, for spreadsheets.
    Csv,
}

impl System {
    pub(super) fn delimiter(self) -> u8 {
        match self {
            Self::Shopify | Self::Csv => b',',
            Self::Akeneo => b';',
            Self::Google => b'\t',
        }
    }

    pub(super) fn header(self) -> Vec<&'static str> {
        match self {
            Self::Shopify => vec!["Handle", "Image Src", "Image Position", "Image Alt Text"],
            Self::Akeneo => [&["sku"], &IMAGE_COLUMNS[..]].concat(),
            Self::Google => vec!["id", "image_link", "additional_image_link"],
            Self::Csv => {
                [&["sku", "image_count"], &IMAGE_COLUMNS[..], &["request_id", "model_actual", "completed_at"]].concat()
            }
        }
    }

    pub(super) fn records(self, row: &Completed, links: &[String]) -> Vec<Vec<String>> {
        let columns = || (0..IMAGES).map(|n| links.get(n).cloned().unwrap_or_default());
        match self {
            Self::Shopify => {
                let record = |(position, link): (usize, &String)| {
                    vec![handle(&row.sku), link.clone(), position.to_string(), row.sku.clone()]
                };
                (1..).zip(links).map(record).collect()
            }
            Self::Akeneo => vec![std::iter::once(row.sku.clone()).chain(columns()).collect()],
            Self::Google => {
                // Google separates the addresses by commas, so a comma in an address is escaped.
                let more: Vec<_> = links.iter().skip(1).map(|link| link.replace(',', "%2C")).collect();
                vec![vec![row.sku.clone(), links.first().cloned().unwrap_or_default(), more.join(",")]]
            }
            Self::Csv => {
                let text = |field: &Option<String>| field.clone().unwrap_or_default();
                let begin = [row.sku.clone(), links.len().to_string()].into_iter();
                let end = [text(&row.request_id), text(&row.model_actual), row.completed_at.to_string()];
                vec![begin.chain(columns()).chain(end).collect()]
            }
        }
    }
}

/// The SKU in the form of Shopify's handles: lower-case letters, digits and single hyphens. A handle does not change.
pub(super) fn handle(sku: &str) -> String {
    let words: Vec<_> = sku.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    if words.is_empty() { sku.to_owned() } else { words.join("-").to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_have_the_form_of_shopifys() {
        for (sku, expected) in [
            ("SKU-1001", "sku-1001"),
            ("blue-mug", "blue-mug"),
            ("A/b  c_", "a-b-c"),
            ("Größe 5", "größe-5"),
            ("//", "//"),
        ] {
            assert_eq!(handle(sku), expected);
        }
    }
}
