//! The files that a run uploads, and what must become of each.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use packshot_pipeline::{
    model::{
        defaults::Defaults,
        request::{Fingerprint, Request},
    },
    settings::{GenerateSettings, SplitSettings},
};

use crate::random::{percent, pick, up_to};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A file that is uploaded into the bucket.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) at: Duration,
    pub(crate) key: String,
    pub(crate) body: Vec<u8>,
    pub(crate) expected: Expected,
}

/// What must become of a file.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    Rows(Vec<ExpectedRow>),
    Rejected { code: &'static str, has_line: bool },
}

impl Expected {
    /// Rows of the file, if it is a catalog.
    pub(crate) fn rows(&self) -> &[ExpectedRow] {
        match self {
            Self::Rows(rows) => rows,
            Self::Rejected { .. } => &[],
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ExpectedRow {
    pub(crate) sku: String,
    pub(crate) line: u64,
    /// What is paid for, or the code with which the row is rejected.
    pub(crate) verdict: Result<Fingerprint, &'static str>,
}

/// A row as it is written into the file.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    sku: String,
    title: String,
    image_url: String,
    brand: String,
    n: String,
    revision: String,
    /// With one field too few.
    cut: bool,
}

impl Row {
    /// The same request under another SKU.
    pub(crate) fn with_sku(self, sku: &str) -> Self {
        Self { sku: sku.to_owned(), ..self }
    }
}

/// The valid row of a product.
pub(crate) fn row(product: u64) -> Row {
    Row {
        sku: format!("SKU-{product}"),
        title: format!("Product {product}"),
        image_url: format!("https://shop.example/{product}.jpg"),
        brand: "Northline".into(),
        n: String::new(),
        revision: String::new(),
        cut: false,
    }
}

/// Draws the uploads of a run: one to three files, mostly about the same products.
pub(crate) fn draw(rng: &mut Rng, generate: &GenerateSettings, split: &SplitSettings) -> Vec<Upload> {
    let count = match rng.u32(0..2_000) {
        // Two parts; and more than the splitter sends between two checkpoints.
        0..3 => rng.usize(1_001..1_300),
        3 => rng.usize(2_001..2_200),
        4..220 => rng.usize(1..=50),
        220..240 => 0,
        _ => rng.usize(1..=10),
    };
    let odd = pick(rng, &[0, 10, 40]);
    let mut rows = draw_rows(rng, count, odd);
    let mut uploads = Vec::new();
    let mut at = Duration::ZERO;
    for number in 0..pick(rng, &[1, 1, 2, 2, 3]) {
        let mut key = "incoming/spring/shoes.csv";
        if number > 0 {
            at += match rng.u32(0..10) {
                0..2 => Duration::ZERO,
                2..5 => up_to(rng, 5 * SECOND),
                5..8 => up_to(rng, 20 * MINUTE),
                // When what was paid for may no longer be reused.
                _ if percent(rng, 50) => generate.reuse + SECOND,
                _ => 2 * DAY,
            };
            match rng.u32(0..10) {
                // The same file again.
                0..4 => {}
                // One row edited.
                4..6 if !rows.is_empty() => {
                    let row = rng.usize(0..rows.len());
                    rows[row].title.push_str(" (new)");
                }
                6 if !rows.is_empty() => {
                    let row = rng.usize(0..rows.len());
                    rows[row].revision = format!("{number}");
                }
                // Another file with the same products.
                _ => {
                    key = "incoming/autumn.csv";
                    rows = draw_rows(rng, rng.clone().usize(0..20), odd);
                }
            }
        }
        let (body, expected) =
            if percent(rng, 4) { invalid_catalog(rng, &rows) } else { write_catalog(&rows, &split.defaults) };
        let expected = if too_many_images(expected.rows(), split) {
            Expected::Rejected { code: "too_many_images", has_line: true }
        } else {
            expected
        };
        uploads.push(Upload { at, key: key.to_owned(), body, expected });
    }
    uploads
}

fn too_many_images(rows: &[ExpectedRow], split: &SplitSettings) -> bool {
    let images = rows.iter().filter(|row| row.verdict.is_ok()).count() as u64 * u64::from(split.defaults.n);
    split.max_images.is_some_and(|max| images > max)
}

/// Draws rows, of which `odd` percent differ from a plain row in one way.
fn draw_rows(rng: &mut Rng, count: usize, odd: u32) -> Vec<Row> {
    let first = rng.u64(0..4);
    let mut rows: Vec<Row> = Vec::with_capacity(count);
    for number in 0..count as u64 {
        let mut next = row(first + number);
        if percent(rng, odd) {
            let other = (!rows.is_empty()).then(|| rows[rng.usize(0..rows.len())].clone());
            match (rng.u32(0..12), other) {
                // Another SKU with the same request.
                (0..3, Some(other)) => next = other.with_sku(&next.sku),
                // The same row again.
                (3..5, Some(other)) => next = other,
                // The same SKU with another request.
                (5, Some(other)) => next.sku = other.sku,
                (6, _) => next.title = " ".into(),
                (7, _) => next.image_url = "ftp://shop.example/1.jpg".into(),
                (8, _) => next.n = "7".into(),
                (9, _) => next.cut = true,
                (10, _) => next.sku = pick(rng, &["../../x", "a b/ü \"c\"", "..", "100%"]).to_owned() + &next.sku,
                _ => next.brand = "Over\ntwo lines".into(),
            }
        }
        rows.push(next);
    }
    rows
}

/// The bytes of a catalog with these rows, and what must become of it.
pub(crate) fn write_catalog(rows: &[Row], defaults: &Defaults) -> (Vec<u8>, Expected) {
    let mut text = String::from("note,sku,title,image_url,brand,style_tags,n,revision\n");
    let mut seen: BTreeMap<String, Fingerprint> = BTreeMap::new();
    let mut expected = Vec::with_capacity(rows.len());
    let mut line = 2;
    for row in rows {
        let fields = ["kept", &row.sku, &row.title, &row.image_url, &row.brand, "", &row.n, &row.revision];
        let fields = if row.cut { &fields[..7] } else { &fields };
        let quoted: Vec<_> = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
        let record = quoted.join(",") + "\n";
        expected.push(ExpectedRow { sku: row.sku.clone(), line, verdict: validate(row, defaults, &mut seen) });
        line += record.matches('\n').count() as u64;
        text.push_str(&record);
    }
    (text.into_bytes(), Expected::Rows(expected))
}

/// What the contract says about a row. Written from the contract and not with the code under test.
fn validate(
    row: &Row,
    defaults: &Defaults,
    seen: &mut BTreeMap<String, Fingerprint>,
) -> Result<Fingerprint, &'static str> {
    if row.cut {
        return Err("field_count");
    }
    if row.title.trim().is_empty() {
        return Err("empty_field");
    }
    if !row.image_url.starts_with("https://") {
        return Err("invalid_image_url");
    }
    if !row.n.is_empty() {
        return Err("invalid_n");
    }
    let request = Request {
        model: defaults.model.clone(),
        prompt: format!(
            "E-commerce hero product photo of {}. Brand identity: {}. Photorealistic, centered composition, clean edges, no \
             watermark, no extra text.",
            row.title.trim(),
            row.brand
        ),
        image_url: row.image_url.clone(),
        size: defaults.size.clone(),
        quality: defaults.quality.clone(),
        n: defaults.n,
        background: None,
        revision: (!row.revision.is_empty()).then(|| row.revision.clone()),
    };
    let fingerprint = request.fingerprint();
    if *seen.entry(row.sku.clone()).or_insert_with(|| fingerprint.clone()) != fingerprint {
        return Err("duplicate_sku");
    }
    Ok(fingerprint)
}

/// A file that must be rejected as a whole.
fn invalid_catalog(rng: &mut Rng, rows: &[Row]) -> (Vec<u8>, Expected) {
    // Few rows, so that the file meets no limit before the error.
    let (mut body, _) = write_catalog(&rows[..rows.len().min(2)], &Defaults::default());
    let (code, has_line) = match rng.u32(0..3) {
        0 => {
            body.clear();
            ("empty_file", false)
        }
        1 => {
            let title = body.windows(5).position(|word| word == b"title").unwrap_or_default();
            body.splice(title..title + 5, *b"xyzzy");
            ("missing_column", true)
        }
        _ => {
            body.splice(..4, *b"sku");
            ("duplicate_column", true)
        }
    };
    (body, Expected::Rejected { code, has_line })
}
