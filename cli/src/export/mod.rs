//! The completed rows of a manifest in the format of another system.
//!
//! [`Export::write`] reads the manifest line by line. It leaves out failed rows, rows without an address and repeated SKUs, and
//! counts them. The [`System`] decides on columns and records. Cells that a spreadsheet would take for formulas are defused.

mod system;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use packshot_pipeline::model::{
    result::{Completed, RowResult},
    spreadsheet::defuse,
};
use sha2::{Digest as _, Sha256};

pub(crate) use self::system::System;
use self::system::handle;
use crate::{atomic_file::AtomicFile, catalog_file::FileError};

/// What to export.
pub(crate) struct Export {
    pub(crate) manifest: PathBuf,
    pub(crate) system: System,
    /// Address of the bucket: links to the stored images instead of the API's own.
    pub(crate) base_url: Option<String>,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error(transparent)]
    File(#[from] FileError),
    /// The output that the caller passed cannot be written.
    #[error("standard output: {0}")]
    Output(io::Error),
    #[error("{path}, line {line}: not a line of a manifest ({error}); give the path of a manifest.jsonl")]
    NotAManifest { path: String, line: u64, error: serde_json::Error },
}

/// Counts what was exported and what was left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExportCounts {
    pub(crate) products: u64,
    pub(crate) images: u64,
    /// Failed rows.
    pub(crate) failed: u64,
    /// Completed rows without an address.
    pub(crate) without_address: u64,
    /// Rows whose SKU an earlier row has.
    pub(crate) repeated: u64,
    /// SKUs whose Shopify handle another SKU has, too.
    pub(crate) clashes: u64,
    /// SKUs that look like formulas.
    pub(crate) defused: u64,
}

impl Export {
    /// Writes the export to a file, which appears when it is complete.
    pub(crate) fn write_file(&self, path: &Path) -> Result<ExportCounts, ExportError> {
        let file_error = |error| FileError::new(path, error);
        let mut file = AtomicFile::create(path).map_err(file_error)?;
        let counts = self.write(file.file()).map_err(|error| match error {
            ExportError::Output(error) => file_error(error).into(),
            error => error,
        })?;
        file.commit().map_err(file_error)?;
        Ok(counts)
    }

    /// Writes the export. It reads the manifest line by line and keeps one line and 16 bytes a SKU in memory.
    pub(crate) fn write(&self, output: impl Write) -> Result<ExportCounts, ExportError> {
        let input_error = |error| FileError::new(&self.manifest, error);
        let csv_error = |error: csv::Error| ExportError::Output(error.into());
        let file = File::open(&self.manifest).map_err(input_error)?;
        let mut writer =
            csv::WriterBuilder::new().delimiter(self.system.delimiter()).from_writer(BufWriter::new(output));
        writer.write_record(self.system.header()).map_err(csv_error)?;
        let mut counts = ExportCounts::default();
        let (mut skus, mut handles) = (BTreeSet::new(), BTreeSet::new());
        for (line, number) in BufReader::new(file).split(b'\n').zip(1..) {
            let line = line.map_err(input_error)?;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let row = match serde_json::from_slice(&line) {
                Ok(RowResult::Completed(row)) => row,
                Ok(RowResult::Failed(_)) => {
                    counts.failed += 1;
                    continue;
                }
                Err(error) => {
                    let path = self.manifest.display().to_string();
                    return Err(ExportError::NotAManifest { path, line: number, error });
                }
            };
            let links = self.links(&row);
            if links.is_empty() {
                counts.without_address += 1;
                continue;
            }
            if !skus.insert(digest(&row.sku)) {
                counts.repeated += 1;
                continue;
            }
            if self.system == System::Shopify && !handles.insert(digest(&handle(&row.sku))) {
                counts.clashes += 1;
            }
            counts.products += 1;
            counts.images += links.len() as u64;
            counts.defused += u64::from(defuse(&row.sku) != row.sku);
            for record in self.system.records(&row, &links) {
                writer.write_record(record.iter().map(|cell| defuse(cell).into_owned())).map_err(csv_error)?;
            }
        }
        writer.flush().map_err(ExportError::Output)?;
        Ok(counts)
    }

    /// The addresses of the images: the API's own or, with a base URL, those of the stored images.
    fn links(&self, row: &Completed) -> Vec<String> {
        let Some(base) = &self.base_url else { return row.image_urls.clone() };
        let base = base.trim_end_matches('/');
        row.assets.iter().map(|asset| format!("{base}/{}", url_path(&asset.key))).collect()
    }
}

/// A key as the path of an address. A percent sign in the key is escaped, because the key contains it literally.
fn url_path(key: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'_').remove(b'-').remove(b'~');
    percent_encoding::utf8_percent_encode(key, KEPT).to_string()
}

/// Distinguishes SKUs in less memory than the SKUs themselves.
fn digest(text: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256::digest(text)[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_image_is_linked_to_by_its_escaped_key() {
        assert_eq!(url_path("images/a b/A%2FB/A%2FB_1.png"), "images/a%20b/A%252FB/A%252FB_1.png");
    }
}
