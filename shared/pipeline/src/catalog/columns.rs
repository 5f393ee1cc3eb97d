//! Which column of the file means what.

use std::collections::BTreeMap;

use crate::model::column::{Column, ColumnMap, normal};
use crate::{
    catalog::records::Record,
    model::{catalog_error::NotACatalog, spreadsheet},
};

/// A kind of file whose columns we know.
struct Export {
    /// For people, and for `job.json`.
    name: &'static str,
    /// The names that it has for our columns, the better one first. `name-*` is any name that begins so.
    columns: &'static [(Column, &'static [&'static str])],
}

/// Our own names. In other exports they are understood as well, except for [`PRODUCT_PROPERTIES`].
const OWN: Export = Export {
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

/// The table: the first export whose columns hold all that is required is the one. docs/input.md shows it.
const EXPORTS: [Export; 5] = [
    OWN,
    Export {
        name: "shopify",
        columns: &[
            (Column::Sku, &["Variant SKU", "SKU", "Handle", "URL handle"]),
            (Column::Title, &["Title"]),
            (Column::ImageUrl, &["Image Src", "Product image URL"]),
            (Column::Brand, &["Vendor"]),
            (Column::StyleTags, &["Tags"]),
        ],
    },
    Export {
        name: "woocommerce",
        columns: &[
            (Column::Sku, &["SKU"]),
            (Column::Title, &["Name"]),
            (Column::ImageUrl, &["Images"]),
            (Column::Brand, &["Brands"]),
            (Column::StyleTags, &["Tags"]),
        ],
    },
    Export {
        name: "google-merchant",
        columns: &[
            (Column::Sku, &["id"]),
            (Column::Title, &["title"]),
            (Column::ImageUrl, &["image_link"]),
            (Column::Brand, &["brand"]),
        ],
    },
    Export {
        name: "akeneo",
        columns: &[
            (Column::Sku, &["sku", "identifier"]),
            (Column::Title, &["name", "name-*"]),
            (Column::ImageUrl, &["image_url", "image", "picture", "main_image"]),
            (Column::Brand, &["brand"]),
        ],
    },
];

/// In other exports these mean the product, not the picture: a shoe's size 42, a phone's model, a quality of leather.
const PRODUCT_PROPERTIES: [Column; 4] = [Column::Size, Column::Quality, Column::Background, Column::Model];
/// Shopify's name of a product. Where a row has no SKU it is the key, and it tells rows that only go on with a product.
const HANDLES: &[&str] = &["Handle", "URL handle"];

type Index = [Option<usize>; Column::ALL.len()];

/// The header of a catalog, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Every column's name as it stands in the file, made unique.
    pub names: Vec<String>,
    /// Which kind of file it was recognised as.
    pub export: &'static str,
    /// Where each column that packshot understands stands in the record.
    index: Index,
    /// Shopify's handle.
    handle: Option<usize>,
    /// WooCommerce's type.
    kind: Option<usize>,
    /// Akeneo's names in its other languages, for products that have none in the first.
    more_titles: Vec<usize>,
    /// A field of the photo's column lists several, as WooCommerce's does.
    many_images: bool,
    /// The file is a `failed.csv` of ours, with formulas defused.
    defused: bool,
}

impl Columns {
    /// Reads a header whose columns nobody has said anything about.
    pub fn from_header(header: &Record<'_>) -> Result<Self, NotACatalog> {
        Self::read(header, &ColumnMap::new())
    }

    /// Reads a header.
    pub fn read(header: &Record<'_>, map: &ColumnMap) -> Result<Self, NotACatalog> {
        let fields: Vec<&str> = header.fields().map(str::trim).collect();
        let (export, index) = recognise(&fields, map).map_err(|problem| problem.at(header.line, header.byte))?;
        let is = |name: &str| export.name == name;
        Ok(Self {
            export: export.name,
            index,
            handle: is("shopify").then(|| find(&fields, HANDLES)).flatten(),
            kind: is("woocommerce").then(|| find(&fields, &["Type"])).flatten(),
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

    /// Whether these names hold what a catalog needs.
    pub(crate) fn suffice(fields: &[&str], map: &ColumnMap) -> bool {
        recognise(fields, map).is_ok()
    }

    /// Where a column stands.
    #[must_use]
    pub fn position(&self, column: Column) -> Option<usize> {
        self.index[column as usize]
    }

    /// A column as messages name it: ours, and the file's where it has another.
    #[must_use]
    pub fn called(&self, column: Column) -> String {
        match self.position(column).map(|index| self.names[index].as_str()) {
            Some(theirs) if theirs != column.name() => format!("{} (`{theirs}`)", column.name()),
            _ => column.name().to_owned(),
        }
    }

    /// A field of a row, trimmed; empty where the file has no such column.
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

    /// All fields of a row, as their author wrote them.
    pub fn fields<'a>(&self, record: &Record<'a>) -> impl Iterator<Item = &'a str> {
        record.fields().map(|field| self.authentic(field))
    }

    /// Whether a row only goes on with the product of the row before: another variant, or another picture. `product` is
    /// the handle of the product above, kept between calls. Such a row is no row of its own.
    #[must_use]
    pub fn continues(&self, record: &Record<'_>, product: &mut String) -> bool {
        if record.len() != self.names.len() {
            return false;
        }
        if let Some(kind) = self.kind {
            return self.field(record, kind).split(',').any(|word| word.trim().eq_ignore_ascii_case("variation"));
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

    /// What was recognised: standard name → name in the file.
    #[must_use]
    pub fn mapping(&self) -> BTreeMap<String, String> {
        Column::ALL
            .into_iter()
            .filter_map(|column| Some((column.name().to_owned(), self.names[self.position(column)?].clone())))
            .collect()
    }

    fn field<'a>(&self, record: &Record<'a>, index: usize) -> &'a str {
        self.authentic(record.get(index).unwrap_or(""))
    }

    fn authentic<'a>(&self, field: &'a str) -> &'a str {
        if self.defused { spreadsheet::restore(field) } else { field }
    }
}

/// The kind of file, and where our columns stand in it.
fn recognise(fields: &[&str], map: &ColumnMap) -> Result<(&'static Export, Index), NotACatalog> {
    let mapped = apply(fields, map)?;
    let mut closest: Option<(&'static Export, Vec<Column>)> = None;
    for export in &EXPORTS {
        let mut index = mapped;
        let own = OWN.columns.iter().filter(|(column, _)| !PRODUCT_PROPERTIES.contains(column));
        for (column, names) in export.columns.iter().chain(own) {
            let place = &mut index[*column as usize];
            *place = place.or_else(|| find(fields, names));
        }
        let missing: Vec<_> = Column::REQUIRED.into_iter().filter(|&column| index[column as usize].is_none()).collect();
        if missing.is_empty() {
            return unambiguous(fields, map, &index).map(|()| (export, index));
        }
        if closest.as_ref().is_none_or(|(_, fewest)| missing.len() < fewest.len()) {
            closest = Some((export, missing));
        }
    }
    let (export, missing) = closest.unwrap_or((&EXPORTS[0], Column::REQUIRED.to_vec()));
    Err(missing_columns(fields, export, &missing))
}

/// What a person said. Whoever names a column means that one, so a name that is not there ends it.
fn apply(fields: &[&str], map: &ColumnMap) -> Result<Index, NotACatalog> {
    let mut index = Index::default();
    for (column, name) in map {
        let exactly = fields.iter().position(|field| field == name);
        index[*column as usize] = Some(exactly.or_else(|| find(fields, &[name.as_str()])).ok_or_else(|| {
            NotACatalog::new(
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

/// A column that is understood must not stand in the header twice: which one is meant?
fn unambiguous(fields: &[&str], map: &ColumnMap, index: &Index) -> Result<(), NotACatalog> {
    for column in Column::ALL {
        let Some(at) = index[column as usize] else { continue };
        let exact = map.contains_key(&column);
        let same = |field: &&str| if exact { *field == fields[at] } else { normal(field) == normal(fields[at]) };
        if fields.iter().filter(|field| same(field)).count() > 1 {
            let what = format!("the column `{}` stands in the header twice; keep one of them", fields[at]);
            return Err(NotACatalog::new("duplicate_column", what));
        }
    }
    Ok(())
}

fn missing_columns(fields: &[&str], export: &Export, missing: &[Column]) -> NotACatalog {
    let named = missing.iter().map(|&column| {
        let names = export.columns.iter().find(|(c, _)| *c == column).map_or(&[][..], |(_, names)| names);
        let ours = column.name();
        if names.is_empty() || export.name == OWN.name {
            return format!("`{ours}`");
        }
        format!("`{ours}` (`{}`, as in a {} file)", names.join("` or `"), export.name)
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let remedy = if fields.iter().any(|field| field.contains("://")) {
        "This line looks like a product: put a line with the names of the columns above it"
    } else {
        "The first line must name at least sku, title and image_url; other names can be mapped: sku=COLUMN"
    };
    let reason = format!("the header has no column {named}; it has: {}. {remedy}", listed(fields));
    NotACatalog::new("missing_column", reason)
}

/// The names of the columns, for messages.
fn listed(fields: &[&str]) -> String {
    const SHOWN: usize = 60;
    let mut names: Vec<String> = fields.iter().take(SHOWN).map(|field| field.chars().take(60).collect()).collect();
    if fields.len() > SHOWN {
        names.push(format!("… and {} more", fields.len() - SHOWN));
    }
    names.join(", ")
}

/// Where the first of `names` stands that stands anywhere.
fn find(fields: &[&str], names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| match name.strip_suffix('*') {
        Some(start) => fields.iter().position(|f| f.get(..start.len()).is_some_and(|f| f.eq_ignore_ascii_case(start))),
        None => fields.iter().position(|field| normal(field) == normal(name)),
    })
}

/// Columns that are only kept may repeat; `failed.csv` must still be able to name each.
fn unique(fields: &[&str]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let mut names = Vec::with_capacity(fields.len());
    for &field in fields {
        let repeats = seen.entry(field).and_modify(|count| *count += 1).or_insert(1u32);
        names.push(if *repeats == 1 { field.to_owned() } else { format!("{field} ({repeats})") });
    }
    names
}

/// As `str::trim`, at once where both ends are letters that anybody can see.
fn trim(text: &str) -> &str {
    let visible = |end: Option<&u8>| end.is_some_and(u8::is_ascii_graphic);
    if visible(text.as_bytes().first()) && visible(text.as_bytes().last()) { text } else { text.trim() }
}

/// The first of several addresses. An address may hold commas itself, so only a comma before the next address parts them.
fn first_image(list: &str) -> &str {
    let next = list.match_indices(',').find(|(at, _)| list[at + 1..].trim_start().starts_with("http"));
    next.map_or(list, |(at, _)| list[..at].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::column::{parse_column_map, parse_mapping};

    type Found = (&'static str, Vec<(Column, usize)>);

    fn recognised(header: &str, map: &str) -> Result<Found, String> {
        let fields: Vec<&str> = header.split(',').collect();
        let map = parse_column_map(map).unwrap();
        let (export, index) = recognise(&fields, &map).map_err(|problem| problem.reason)?;
        Ok((export.name, Column::ALL.into_iter().filter_map(|c| Some((c, index[c as usize]?))).collect()))
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
            assert_eq!(recognised(header, map), Ok((export, columns.to_vec())), "{header}");
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
            ("sku,Title,title,image_url", "", "`Title` stands in the header twice"),
        ] {
            let problem = recognised(header, map).unwrap_err();
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
    fn the_first_of_several_pictures() {
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
        for export in &EXPORTS[1..] {
            for name in export.columns.iter().flat_map(|(_, names)| *names) {
                assert!(page.contains(&format!("`{name}`")), "docs/input.md does not show {name} of {}", export.name);
            }
        }
    }
}
