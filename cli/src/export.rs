//! `packshot export`: the completed rows of a manifest, in the shape that another system reads.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use packshot_pipeline::model::{
    result::{Completed, RowResult},
    spreadsheet::defuse,
};
use sha2::{Digest as _, Sha256};

/// The API makes at most four pictures of a row.
const PICTURES: usize = 4;
/// What a CSV for people and systems with a column per picture holds.
const PICTURE_COLUMNS: [&str; PICTURES] = ["image_1", "image_2", "image_3", "image_4"];

/// Arguments of `packshot export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot export shoes-manifest.jsonl --to shopify --output shopify.csv
  packshot export shoes-manifest.jsonl --to google --base-url https://cdn.example.com > feed.tsv

  shopify   product CSV: one line per picture (Handle, Image Src, Image Position, Image Alt Text); the handle is made from the SKU
  akeneo    CSV with semicolons: sku, image_1 … image_4; name the columns like your attributes
  google    Merchant feed, tab-separated: id, image_link, additional_image_link
  csv       one line per product: sku, image_count, image_1 … image_4, request_id, model_actual, completed_at

Only completed rows are exported. The API's own addresses may expire: with --base-url the pictures that were kept under images/ are
linked to. A cell that begins like a spreadsheet formula (= + - @) gets a leading apostrophe.")]
pub struct ExportArgs {
    /// A manifest.jsonl.
    pub manifest: PathBuf,
    /// For which system.
    #[arg(long, value_name = "SYSTEM", value_enum)]
    pub to: System,
    /// Where to write (default: standard output).
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Link to the pictures that were kept, under this address of the bucket.
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
}

/// A system that reads product pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum System {
    /// Shopify's product CSV.
    Shopify,
    /// Akeneo's product import.
    Akeneo,
    /// Google's Merchant feed.
    Google,
    /// A flat CSV.
    Csv,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// Not a manifest.
    #[error("{path}, line {line}: not a line of a manifest ({error}); give the path of a manifest.jsonl")]
    NotAManifest {
        /// The file.
        path: String,
        /// Its line, from 1.
        line: u64,
        /// What JSON says.
        error: serde_json::Error,
    },
}

/// What was exported, and what was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Products.
    pub products: u64,
    /// Their pictures.
    pub pictures: u64,
    /// Failed rows.
    pub failed: u64,
    /// Completed rows without an address.
    pub without_address: u64,
    /// Rows whose SKU was exported already.
    pub repeated: u64,
    /// SKUs whose Shopify handle is another SKU's too.
    pub clashes: u64,
    /// SKUs that look like formulas.
    pub defused: u64,
}

/// Exports, and says on standard error what was left out.
pub fn run(args: &ExportArgs) -> Result<(), ExportError> {
    let exported = match &args.output {
        None => match export(args, io::stdout().lock()) {
            // Whoever reads has seen enough.
            Err(ExportError::File { error, .. }) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            exported => exported?,
        },
        Some(output) => {
            let file_error = |error| ExportError::File { path: output.display().to_string(), error };
            let part = beside(output);
            let exported = export(args, File::create(&part).map_err(file_error)?);
            if exported.is_err() {
                // Half an export is no use to anyone; the error that matters is the first one.
                let _ = std::fs::remove_file(&part);
            }
            let exported = exported?;
            std::fs::rename(&part, output).map_err(file_error)?;
            exported
        }
    };
    eprintln!("{} products with {} pictures are exported.", exported.products, exported.pictures);
    let left_out = |count, what: &str| {
        if count > 0 {
            eprintln!("{count} {what}");
        }
    };
    left_out(exported.failed, "failed rows are left out.");
    left_out(
        exported.without_address,
        "completed rows are left out: the API gave no addresses. Give --base-url to link to the pictures that were kept.",
    );
    left_out(exported.repeated, "rows are left out: their SKU stands in an earlier row, with the same pictures.");
    left_out(exported.clashes, "SKUs make the same handle as another SKU; Shopify would take them for one product.");
    left_out(exported.defused, "SKUs begin like a spreadsheet formula and got a leading apostrophe.");
    Ok(())
}

fn beside(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    output.with_file_name(name)
}

/// Reads the manifest line by line and writes what the system wants, with memory for one line and 16 bytes a SKU.
fn export(args: &ExportArgs, output: impl Write) -> Result<Exported, ExportError> {
    let input_error = |error| ExportError::File { path: args.manifest.display().to_string(), error };
    let output_error = |error| ExportError::File {
        path: args.output.as_ref().map_or_else(|| "standard output".into(), |path| path.display().to_string()),
        error,
    };
    let file = File::open(&args.manifest).map_err(input_error)?;
    let mut writer = csv::WriterBuilder::new().delimiter(args.to.delimiter()).from_writer(BufWriter::new(output));
    let csv_error = |error: csv::Error| output_error(error.into());
    writer.write_record(args.to.header()).map_err(csv_error)?;
    let mut exported = Exported::default();
    let (mut skus, mut handles) = (BTreeSet::new(), BTreeSet::new());
    for (line, number) in BufReader::new(file).split(b'\n').zip(1..) {
        let line = line.map_err(input_error)?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let row = match serde_json::from_slice(&line) {
            Ok(RowResult::Completed(row)) => row,
            Ok(RowResult::Failed(_)) => {
                exported.failed += 1;
                continue;
            }
            Err(error) => {
                let path = args.manifest.display().to_string();
                return Err(ExportError::NotAManifest { path, line: number, error });
            }
        };
        let links = links(&row, args.base_url.as_deref());
        if links.is_empty() {
            exported.without_address += 1;
            continue;
        }
        if !skus.insert(digest(&row.sku)) {
            exported.repeated += 1;
            continue;
        }
        if args.to == System::Shopify && !handles.insert(digest(&handle(&row.sku))) {
            exported.clashes += 1;
        }
        exported.products += 1;
        exported.pictures += links.len() as u64;
        exported.defused += u64::from(defuse(&row.sku) != row.sku);
        for record in args.to.records(&row, &links) {
            writer.write_record(record.iter().map(|cell| defuse(cell).into_owned())).map_err(csv_error)?;
        }
    }
    writer.flush().map_err(output_error)?;
    Ok(exported)
}

/// The pictures' addresses: the API's, or under `base` those of the pictures that were kept.
fn links(row: &Completed, base: Option<&str>) -> Vec<String> {
    let Some(base) = base else { return row.image_urls.clone() };
    let base = base.trim_end_matches('/');
    row.assets.iter().map(|asset| format!("{base}/{}", url_path(&asset.key))).collect()
}

/// A key as the path of an address: what is an escape in the key is a plain percent sign to the web.
fn url_path(key: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'_').remove(b'-').remove(b'~');
    percent_encoding::utf8_percent_encode(key, KEPT).to_string()
}

impl System {
    fn delimiter(self) -> u8 {
        match self {
            Self::Shopify | Self::Csv => b',',
            Self::Akeneo => b';',
            Self::Google => b'\t',
        }
    }

    fn header(self) -> Vec<&'static str> {
        match self {
            Self::Shopify => vec!["Handle", "Image Src", "Image Position", "Image Alt Text"],
            Self::Akeneo => [&["sku"], &PICTURE_COLUMNS[..]].concat(),
            Self::Google => vec!["id", "image_link", "additional_image_link"],
            Self::Csv => {
                [&["sku", "image_count"], &PICTURE_COLUMNS[..], &["request_id", "model_actual", "completed_at"]]
                    .concat()
            }
        }
    }

    fn records(self, row: &Completed, links: &[String]) -> Vec<Vec<String>> {
        let columns = || (0..PICTURES).map(|n| links.get(n).cloned().unwrap_or_default());
        match self {
            Self::Shopify => {
                let record = |(position, link): (usize, &String)| {
                    vec![handle(&row.sku), link.clone(), position.to_string(), row.sku.clone()]
                };
                (1..).zip(links).map(record).collect()
            }
            Self::Akeneo => vec![std::iter::once(row.sku.clone()).chain(columns()).collect()],
            Self::Google => {
                // A comma separates the addresses, so one within an address must not.
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

/// Tells SKUs apart without keeping them.
fn digest(text: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256::digest(text)[..16]);
    short
}

/// A SKU as Shopify writes handles: lower-case letters, digits and single hyphens. A handle stays as it is.
fn handle(sku: &str) -> String {
    let words: Vec<_> = sku.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    if words.is_empty() { sku.to_owned() } else { words.join("-").to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_as_shopify_writes_them() {
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

    #[test]
    fn a_kept_picture_is_linked_to_by_its_escaped_key() {
        assert_eq!(url_path("images/a b/A%2FB/A%2FB_1.png"), "images/a%20b/A%252FB/A%252FB_1.png");
    }
}
