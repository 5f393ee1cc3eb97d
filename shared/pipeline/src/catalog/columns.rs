//! Detects which column of the file is which.
//!
//! A table lists the column names of known export formats (packshot's own, Shopify, WooCommerce, Google Merchant, Akeneo). The
//! first format that has all required columns is taken; a column map takes precedence. [`Columns`] then reads the fields of
//! each record by their standard names.

use std::collections::BTreeMap;

use crate::{
    catalog::records::Record,
    model::{
        catalog_error::CatalogError,
        column::{Column, ColumnMap, normal},
        spreadsheet,
        text::excerpt,
    },
};

/// An export format whose column names are known.
struct ExportFormat {
    /// Name of the format, as in `job.json`.
    name: &'static str,
    /// The format's names for packshot's columns, the preferred one first. `name-*` matches every name with that prefix.
    columns: &'static [(Column, &'static [&'static str])],
}

/// packshot's own names. They are recognised in the other formats as well, except for [`PRODUCT_PROPERTIES`].
const OWN: ExportFormat = ExportFormat {
    name: "packshot",
    columns: &[
        (Column::Sku, &["sku"]),
        (Column::Title, &["title"]),
        (Column::ImageUrl, &["image_url"]),
        (Column::Brand, &["brand"]),
        (Column::StyleTags, &["style_tags"]),
        (Column::N, &["n"]),
        (Column::Size, &["size"]),
        (Column::Quality, &["quality"]),
        (Column::Background, &["background"]),
        (Column::Model, &["model"]),
        (Column::Prompt, &["prompt"]),
        (Column::Revision, &["revision"]),
    ],
};

/// All formats: the first one that has all required columns is taken. docs/input.md shows this table.
const EXPORT_FORMATS: [ExportFormat; 5] = [
    OWN,
    ExportFormat {
        name: "shopify",
        columns: &[
            (Column::Sku, &["Variant SKU", "SKU", "Handle", "URL handle"]),
            (Column::Title, &["Title"]),
            (Column::ImageUrl, &["Image Src", "Product image URL"]),
            (Column::Brand, &["Vendor"]),
            (Column::StyleTags, &["Tags"]),
        ],
    },
    ExportFormat {
        name: "woocommerce",
        columns: &[
            (Column::Sku, &["SKU"]),
            (Column::Title, &["Name"]),
            (Column::ImageUrl, &["Images"]),
            (Column::Brand, &["Brands"]),
            (Column::StyleTags, &["Tags"]),
        ],
    },
    ExportFormat {
        name: "google-merchant",
        columns: &[
            (Column::Sku, &["id"]),
            (Column::Title, &["title"]),
            (Column::ImageUrl, &["image_link"]),
            (Column::Brand, &["brand"]),
        ],
    },
    ExportFormat {
        name: "akeneo",
        columns: &[
            (Column::Sku, &["sku", "identifier"]),
            (Column::Title, &["name", "name-*"]),
            (Column::ImageUrl, &["image_url", "image", "picture", "main_image"]),
            (Column::Brand, &["brand"]),
        ],
    },
];

/// In other formats these columns describe the product, not the image: a shoe's size 42, a phone's model, a quality of leather.
const PRODUCT_PROPERTIES: [Column; 4] = [Column::Size, Column::Quality, Column::Background, Column::Model];
/// Shopify's id of a product. It is the product key of a row without SKU, and it identifies rows that continue a product.
const HANDLES: &[&str] = &["Handle", "URL handle"];

/// For each [`Column`], its position in the record.
type Index = [Option<usize>; Column::ALL.len()];

/// The header of a catalog, with its columns detected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Name of every column as in the file, made unique.
    pub names: Vec<String>,
    /// Name of the detected export format.
    pub export: &'static str,
    /// Positions of the detected columns.
    index: Index,
    /// Position of Shopify's handle.
    handle: Option<usize>,
    /// Position of WooCommerce's product type.
    product_type: Option<usize>,
    /// Positions of Akeneo's names in all languages, for products whose first name is empty.
    more_titles: Vec<usize>,
    /// Whether the image column lists several addresses, as WooCommerce's does.
    many_images: bool,
    /// Whether the file is a `failed.csv` of packshot, with formulas defused.
    defused: bool,
}

impl Columns {
    /// Detects the columns of a header.
    pub fn read(header: &Record<'_>, map: &ColumnMap) -> Result<Self, CatalogError> {
        let fields: Vec<&str> = header.fields().map(str::trim).collect();
        let (format, index) = detect(&fields, map).map_err(|problem| problem.at(header.line, header.byte))?;
        let is = |name: &str| format.name == name;
        Ok(Self {
            export: format.name,
            index,
            handle: is("shopify").then(|| find(&fields, HANDLES)).flatten(),
            product_type: is("woocommerce").then(|| find(&fields, &["Type"])).flatten(),
            more_titles: if is("akeneo") && !map.contains_key(&Column::Title) {
                (0..fields.len()).filter(|&at| find(&fields[at..=at], &["name-*"]).is_some()).collect()
            } else {
                Vec::new()
            },
            many_images: index[Column::ImageUrl as usize].is_some_and(|at| normal(fields[at]) == "images"),
            defused: spreadsheet::is_failed_csv(&fields),
            names: unique(&fields),
        })
    }

    /// Whether these names include all required columns.
    pub(crate) fn suffice(fields: &[&str], map: &ColumnMap) -> bool {
        detect(fields, map).is_ok()
    }

    /// The position of a column in the record; `None` if the file does not have it.
    #[must_use]
    pub fn position(&self, column: Column) -> Option<usize> {
        self.index[column as usize]
    }

    /// A column's name for messages: the standard name, and the file's if it is another one.
    #[must_use]
    pub fn display_name(&self, column: Column) -> String {
        match self.position(column).map(|index| self.names[index].as_str()) {
            Some(theirs) if theirs != column.name() => format!("{} (`{theirs}`)", column.name()),
            _ => column.name().to_owned(),
        }
    }

    /// A field of a row, trimmed; empty if the file does not have the column.
    #[must_use]
    pub fn get<'a>(&self, record: &Record<'a>, column: Column) -> &'a str {
        let text = self.position(column).map_or("", |index| trim(self.field(record, index)));
        match column {
            Column::Sku if text.is_empty() => self.handle.map_or("", |index| self.field(record, index)).trim(),
            Column::Title if text.is_empty() => {
                let mut more = self.more_titles.iter().map(|&index| self.field(record, index).trim());
                more.find(|title| !title.is_empty()).unwrap_or("")
            }
            Column::ImageUrl if self.many_images => first_image(text),
            _ => text,
        }
    }

    /// All fields of a row, as their author wrote them: formulas are no longer defused.
    pub fn fields<'a>(&self, record: &Record<'a>) -> impl Iterator<Item = &'a str> {
        record.fields().map(|field| self.restored(field))
    }

    /// Whether a record only continues the product of the record before it, as another variant or another image. Such a
    /// record does not count as a row. `product` keeps the handle of the product between calls.
    #[must_use]
    pub fn continues(&self, record: &Record<'_>, product: &mut String) -> bool {
        if record.len() != self.names.len() {
            return false;
        }
        if let Some(product_type) = self.product_type {
            return self
                .field(record, product_type)
                .split(',')
                .any(|word| word.trim().eq_ignore_ascii_case("variation"));
        }
        let Some(handle) = self.handle else { return false };
        let handle = self.field(record, handle).trim();
        if self.get(record, Column::Title).is_empty() && !handle.is_empty() && handle == product {
            return true;
        }
        product.clear();
        product.push_str(handle);
        false
    }

    /// The detected columns: standard name → name in the file.
    #[must_use]
    pub fn mapping(&self) -> BTreeMap<String, String> {
        Column::ALL
            .into_iter()
            .filter_map(|column| Some((column.name().to_owned(), self.names[self.position(column)?].clone())))
            .collect()
    }

    fn field<'a>(&self, record: &Record<'a>, index: usize) -> &'a str {
        self.restored(record.get(index).unwrap_or(""))
    }

    /// The field as its author wrote it.
    fn restored<'a>(&self, field: &'a str) -> &'a str {
        if self.defused { spreadsheet::restore(field) } else { field }
    }
}

/// Detects the export format of a header, and the positions of the columns.
fn detect(fields: &[&str], map: &ColumnMap) -> Result<(&'static ExportFormat, Index), CatalogError> {
    let mapped = apply(fields, map)?;
    let mut closest: Option<(&'static ExportFormat, Vec<Column>)> = None;
    for format in &EXPORT_FORMATS {
        let mut index = mapped;
        let own = OWN.columns.iter().filter(|(column, _)| !PRODUCT_PROPERTIES.contains(column));
        for (column, names) in format.columns.iter().chain(own) {
            let position = &mut index[*column as usize];
            *position = position.or_else(|| find(fields, names));
        }
        let missing: Vec<_> = Column::REQUIRED.into_iter().filter(|&column| index[column as usize].is_none()).collect();
        if missing.is_empty() {
            return unambiguous(fields, map, &index).map(|()| (format, index));
        }
        if closest.as_ref().is_none_or(|(_, fewest)| missing.len() < fewest.len()) {
            closest = Some((format, missing));
        }
    }
    let (format, missing) = closest.unwrap_or((&EXPORT_FORMATS[0], Column::REQUIRED.to_vec()));
    Err(missing_columns(fields, format, &missing))
}

/// Looks up the columns that the column map names. A name that the header does not have is an error, because recognition could
/// find another column than the user means.
fn apply(fields: &[&str], map: &ColumnMap) -> Result<Index, CatalogError> {
    let mut index = Index::default();
    for (column, name) in map {
        let exact = fields.iter().position(|field| field == name);
        index[*column as usize] = Some(exact.or_else(|| find(fields, &[name.as_str()])).ok_or_else(|| {
            CatalogError::new(
                "missing_column",
                format!(
                    "the header has no column `{name}`, which the column map names for {}; it has: {}. Correct the column map",
                    column.name(),
                    listed(fields)
                ),
            )
        })?);
    }
    Ok(index)
}

/// Refuses a header that has a detected column twice, because it does not say which of them is meant.
fn unambiguous(fields: &[&str], map: &ColumnMap, index: &Index) -> Result<(), CatalogError> {
    for column in Column::ALL {
        let Some(at) = index[column as usize] else { continue };
        let exact = map.contains_key(&column);
        let same = |field: &&str| if exact { *field == fields[at] } else { normal(field) == normal(fields[at]) };
        if fields.iter().filter(|field| same(field)).count() > 1 {
            let what = format!("the header has the column `{}` twice; keep one of them", fields[at]);
            return Err(CatalogError::new("duplicate_column", what));
        }
    }
    Ok(())
}

fn missing_columns(fields: &[&str], format: &ExportFormat, missing: &[Column]) -> CatalogError {
    let named = missing.iter().map(|&column| {
        let names = format.columns.iter().find(|(c, _)| *c == column).map_or(&[][..], |(_, names)| names);
        let ours = column.name();
        if names.is_empty() || format.name == OWN.name {
            return format!("`{ours}`");
        }
        format!("`{ours}` (`{}`, as in a {} file)", names.join("` or `"), format.name)
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let remedy = if fields.iter().any(|field| field.contains("://")) {
        "This line looks like a product: put a line with the names of the columns above it"
    } else {
        "The first line must name at least sku, title and image_url; other names can be mapped: sku=COLUMN"
    };
    let reason = format!("the header has no column {named}; it has: {}. {remedy}", listed(fields));
    CatalogError::new("missing_column", reason)
}

/// The column names of a header, shortened for messages.
fn listed(fields: &[&str]) -> String {
    const SHOWN: usize = 60;
    const MAX_NAME: usize = 60;
    let mut names: Vec<String> = fields.iter().take(SHOWN).map(|field| excerpt(field, MAX_NAME)).collect();
    if fields.len() > SHOWN {
        names.push(format!("… and {} more", fields.len() - SHOWN));
    }
    names.join(", ")
}

/// The position of the first of `names` that the header has.
fn find(fields: &[&str], names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| match name.strip_suffix('*') {
        Some(start) => fields.iter().position(|f| f.get(..start.len()).is_some_and(|f| f.eq_ignore_ascii_case(start))),
        None => fields.iter().position(|field| normal(field) == normal(name)),
    })
}

/// Makes the names unique by numbering repeats. Columns that packshot does not use may repeat, but `failed.csv` must name each.
fn unique(fields: &[&str]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let mut names = Vec::with_capacity(fields.len());
    for &field in fields {
        let repeats = seen.entry(field).and_modify(|count| *count += 1).or_insert(1u32);
        names.push(if *repeats == 1 { field.to_owned() } else { format!("{field} ({repeats})") });
    }
    names
}

/// As `str::trim`, with a fast path for fields that begin and end with a visible ASCII character.
fn trim(text: &str) -> &str {
    let visible = |end: Option<&u8>| end.is_some_and(u8::is_ascii_graphic);
    if visible(text.as_bytes().first()) && visible(text.as_bytes().last()) { text } else { text.trim() }
}

/// The first of several addresses. An address may contain commas, so only a comma before the next address separates two.
fn first_image(list: &str) -> &str {
    let next = list.match_indices(',').find(|(at, _)| list[at + 1..].trim_start().starts_with("http"));
    next.map_or(list, |(at, _)| list[..at].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::column::{parse_column_map, parse_mapping};

    type Detected = (&'static str, Vec<(Column, usize)>);

    fn detected(header: &str, map: &str) -> Result<Detected, String> {
        let fields: Vec<&str> = header.split(',').collect();
        let map = parse_column_map(map).unwrap();
        let (format, index) = detect(&fields, &map).map_err(|problem| problem.reason)?;
        Ok((format.name, Column::ALL.into_iter().filter_map(|c| Some((c, index[c as usize]?))).collect()))
    }

    #[test]
    fn the_table() {
        use Column::{Brand, ImageUrl, N, Prompt, Size, Sku, StyleTags, Title};
        for (header, map, export, columns) in [
            ("sku,title,image_url", "", "packshot", &[(Sku, 0), (Title, 1), (ImageUrl, 2)][..]),
            (
                "Image URL,TITLE,Sku,Style-Tags,n,size",
                "",
                "packshot",
                &[(Sku, 2), (Title, 1), (ImageUrl, 0), (StyleTags, 3), (N, 4), (Size, 5)],
            ),
            (
                "Handle,Title,Vendor,Tags,Variant SKU,Image Src,Size",
                "",
                "shopify",
                &[(Sku, 4), (Title, 1), (ImageUrl, 5), (Brand, 2), (StyleTags, 3)],
            ),
            ("Handle,Title,Image Src", "", "shopify", &[(Sku, 0), (Title, 1), (ImageUrl, 2)]),
            (
                "Title,URL handle,Vendor,SKU,Product image URL",
                "",
                "shopify",
                &[(Sku, 3), (Title, 0), (ImageUrl, 4), (Brand, 2)],
            ),
            (
                "ID,Type,SKU,Name,Tags,Images,Brands,prompt",
                "",
                "woocommerce",
                &[(Sku, 2), (Title, 3), (ImageUrl, 5), (Brand, 6), (StyleTags, 4), (Prompt, 7)],
            ),
            (
                "id,title,image_link,brand,size",
                "",
                "google-merchant",
                &[(Sku, 0), (Title, 1), (ImageUrl, 2), (Brand, 3)],
            ),
            (
                "identifier,family,name-en_US,name-de_DE,image,brand",
                "",
                "akeneo",
                &[(Sku, 0), (Title, 2), (ImageUrl, 4), (Brand, 5)],
            ),
            ("sku,name,picture", "", "akeneo", &[(Sku, 0), (Title, 1), (ImageUrl, 2)]),
            (
                "Artikel,Bezeichnung,Bild",
                "sku=Artikel; Title = bezeichnung;image-url=Bild",
                "packshot",
                &[(Sku, 0), (Title, 1), (ImageUrl, 2)],
            ),
            ("sku,SKU,title,image_url", "sku=SKU", "packshot", &[(Sku, 1), (Title, 2), (ImageUrl, 3)]),
            (
                "id,title,image_link,size",
                "size=size",
                "google-merchant",
                &[(Sku, 0), (Title, 1), (ImageUrl, 2), (Size, 3)],
            ),
        ] {
            assert_eq!(detected(header, map), Ok((export, columns.to_vec())), "{header}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (header, map, says) in [
            ("sku,n", "", "no column `title`, `image_url`; it has: sku, n. The first line must"),
            ("sku,name", "", "no column `image_url` (`Images`, as in a woocommerce file); it has: sku, name"),
            (
                "Handle,Title,Vendor",
                "",
                "no column `image_url` (`Image Src` or `Product image URL`, as in a shopify file)",
            ),
            ("A1,Mug,https://example.com/a.png", "", "put a line with the names of the columns above it"),
            ("sku,title,image_url", "sku=Artikel", "no column `Artikel`, which the column map names for sku"),
            ("sku,Title,title,image_url", "", "the column `Title` twice"),
        ] {
            let problem = detected(header, map).unwrap_err();
            assert!(problem.contains(says), "{header}: {problem}");
        }
    }

    #[test]
    fn a_mapping_that_cannot_be_read_says_how_to_write_it() {
        for text in ["sku", "sku=", "colour=Farbe", "=x"] {
            let problem = parse_mapping(text).unwrap_err().to_string();
            assert!(problem.contains("sku=COLUMN") && problem.contains("image_url"), "{problem}");
        }
    }

    #[test]
    fn the_first_of_several_images() {
        for (list, first) in [
            ("https://a/1.jpg, https://a/2.jpg", "https://a/1.jpg"),
            ("https://a/1.jpg,https://a/2.jpg", "https://a/1.jpg"),
            ("https://a/w_10,h_20/1.jpg", "https://a/w_10,h_20/1.jpg"),
            ("", ""),
        ] {
            assert_eq!(first_image(list), first);
        }
    }

    #[test]
    fn the_page_on_input_shows_the_table() {
        let page = include_str!("../../../../docs/input.md");
        for format in &EXPORT_FORMATS[1..] {
            for name in format.columns.iter().flat_map(|(_, names)| *names) {
                assert!(page.contains(&format!("`{name}`")), "docs/input.md does not show {name} of {}", format.name);
            }
        }
    }
}
