//! Refuses files that are not text: by the signature in their first bytes, or by control characters in their first line.

use crate::model::catalog_error::CatalogError;

/// Refuses a file whose first bytes are the signature of another format. The error names the format.
pub(super) fn refuse(head: &[u8]) -> Option<CatalogError> {
    let is = |what: &str| {
        let reason = format!(
            "the file is {what}, not a CSV, whatever its name says. Open it in the program that it comes from, save it as \
             \"CSV UTF-8\", and drop that"
        );
        Some(CatalogError::new("not_csv", reason).at(1, 0))
    };
    let contains = |needle: &[u8]| memchr::memmem::find(head, needle).is_some();
    match head {
        [b'P', b'K', 3 | 5, 4 | 6, ..] if contains(b"xl/") || contains(b"[Content_Types].xml") => {
            return is("an Excel workbook (.xlsx)");
        }
        [b'P', b'K', 3 | 5, 4 | 6, ..] if contains(b"opendocument") => return is("an OpenDocument file (.ods)"),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => return is("a ZIP archive"),
        [0xd0, 0xcf, 0x11, 0xe0, ..] => return is("an old Excel workbook (.xls)"),
        [b'%', b'P', b'D', b'F', ..] => return is("a PDF"),
        [0x1f, 0x8b, ..] => return is("packed with gzip twice"),
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', ..] | [0xfd, b'7', b'z', b'X', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            return is("packed with bzip2, xz or zstd (only gzip is read)");
        }
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] | [b'G', b'I', b'F', b'8', ..] => {
            return is("an image");
        }
        _ => {}
    }
    match head.trim_ascii_start() {
        [b'<', ..] => is("a web page or XML"),
        [b'{', b'"' | b'\r' | b'\n' | b' ', ..] | [b'[', b'{' | b'\r' | b'\n', ..] => is("JSON"),
        _ => None,
    }
}

/// Refuses decoded bytes that have control characters in the first line, where the column names should be. In a later line
/// they are an error of that row only.
pub(super) fn refuse_text(text: &[u8]) -> Option<CatalogError> {
    let text = text.trim_ascii_start();
    let line = &text[..memchr::memchr2(b'\n', b'\r', text).unwrap_or(text.len())];
    let zeros = memchr::memchr_iter(0, line).count();
    let what = if zeros * 5 > line.len() * 2 {
        "UTF-16 without a byte order mark, or not text at all"
    } else if line.iter().any(|b| b.is_ascii_control() && !matches!(b, b'\t' | 0x1a)) {
        "not text: its first line has control characters"
    } else {
        return None;
    };
    let reason = format!("the file is {what}. Save the catalog as \"CSV UTF-8\" and drop that");
    Some(CatalogError::new("not_text", reason).at(1, 0))
}
