//! Files that are no text, by their first bytes.

use crate::model::catalog_error::NotACatalog;

/// Says what a file is that is not a CSV.
pub(super) fn refuse(head: &[u8]) -> Option<NotACatalog> {
    let says = |what: &str| {
        let reason = format!(
            "the file is {what}, not a CSV, whatever its name says. Open it in the program that it comes from, save it as \
             \"CSV UTF-8\", and drop that"
        );
        Some(NotACatalog::new("not_csv", reason).at(1, 0))
    };
    let contains = |needle: &[u8]| memchr::memmem::find(head, needle).is_some();
    match head {
        [b'P', b'K', 3 | 5, 4 | 6, ..] if contains(b"xl/") || contains(b"[Content_Types].xml") => {
            return says("an Excel workbook (.xlsx)");
        }
        [b'P', b'K', 3 | 5, 4 | 6, ..] if contains(b"opendocument") => return says("an OpenDocument file (.ods)"),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => return says("a ZIP archive"),
        [0xd0, 0xcf, 0x11, 0xe0, ..] => return says("an old Excel workbook (.xls)"),
        [b'%', b'P', b'D', b'F', ..] => return says("a PDF"),
        [0x1f, 0x8b, ..] => return says("packed with gzip twice"),
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', ..] | [0xfd, b'7', b'z', b'X', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            return says("packed with bzip2, xz or zstd (only gzip is read)");
        }
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] | [b'G', b'I', b'F', b'8', ..] => {
            return says("a picture");
        }
        _ => {}
    }
    match head.trim_ascii_start() {
        [b'<', ..] => says("a web page or XML"),
        [b'{', b'"' | b'\r' | b'\n' | b' ', ..] | [b'[', b'{' | b'\r' | b'\n', ..] => says("JSON"),
        _ => None,
    }
}

/// Says that what was decoded is no text: control characters where the names of columns should be. In a row they are that
/// row's fault, and are said of it.
pub(super) fn refuse_text(text: &[u8]) -> Option<NotACatalog> {
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
    Some(NotACatalog::new("not_text", reason).at(1, 0))
}
