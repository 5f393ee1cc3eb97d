//! Detects how a CSV file is written: its delimiter, its line ending, and an Excel `sep=` line.
//!
//! The delimiter is the one with which the header shows the columns that a catalog needs; if none does, the most frequent one
//! in the header.

use super::{
    columns::Columns,
    records::{ParseStep, RecordParser},
};
use crate::model::{column::ColumnMap, format::LineEnding};

/// The delimiters that are tried, in order of preference.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Parses Excel's `sep=;` in the first line. Returns the delimiter and the offset of the next line.
pub(super) fn separator(head: &[u8]) -> Option<(u8, usize)> {
    let end = memchr::memchr2(b'\n', b'\r', head)?;
    let next = end + if head[end..].starts_with(b"\r\n") { 2 } else { 1 };
    let line = head[..end].trim_ascii();
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    let (word, value) = line.split_at_checked(4)?;
    match value {
        _ if !word.eq_ignore_ascii_case(b"sep=") => None,
        // Trimming has removed the tab.
        [] => Some((b'\t', next)),
        &[delimiter] if delimiter.is_ascii_punctuation() && delimiter != b'"' => Some((delimiter, next)),
        _ => None,
    }
}

/// The first line that is not blank, if `text` holds all of it. Line ends between quotation marks belong to the line.
pub(super) fn header(text: &[u8]) -> Option<&[u8]> {
    let blank = |b: &u8| b.is_ascii_whitespace() || DELIMITERS.contains(b) || *b == b'"';
    let begin = text.iter().position(|b| !blank(b))?;
    let begin = memchr::memrchr2(b'\n', b'\r', &text[..begin]).map_or(0, |end| end + 1);
    let mut quoted = false;
    let length = text[begin..].iter().position(|&b| {
        quoted ^= b == b'"';
        !quoted && matches!(b, b'\n' | b'\r')
    })?;
    Some(&text[begin..begin + length])
}

/// Detects the delimiter of a header. `map` names columns that recognition alone would not find.
pub(super) fn delimiter(header: &[u8], map: &ColumnMap) -> u8 {
    let shows_columns = |&delimiter: &u8| {
        let mut parser = RecordParser::new(delimiter, 0);
        let whole = [header, b"\n"].concat();
        match parser.read(&whole) {
            Ok((_, ParseStep::Record)) => parser
                .record()
                .is_ok_and(|record| Columns::suffice(&record.fields().map(str::trim).collect::<Vec<_>>(), map)),
            _ => false,
        }
    };
    if let Some(delimiter) = DELIMITERS.into_iter().find(shows_columns) {
        return delimiter;
    }
    let mut quoted = false;
    let mut counts = [0usize; DELIMITERS.len()];
    for &byte in header {
        quoted ^= byte == b'"';
        if let Some(at) = DELIMITERS.iter().position(|&d| d == byte && !quoted) {
            counts[at] += 1;
        }
    }
    // Of equal counts `max_by_key` takes the last, so the preferred delimiter comes last.
    let most = DELIMITERS.into_iter().zip(counts).rev().max_by_key(|&(_, count)| count);
    most.map_or(b',', |(delimiter, _)| delimiter)
}

/// The first line ending in a text.
pub(super) fn line_ending(text: &[u8]) -> Option<LineEnding> {
    let end = memchr::memchr2(b'\n', b'\r', text)?;
    Some(match (text[end], text.get(end + 1)) {
        (b'\n', _) => LineEnding::Lf,
        (_, Some(b'\n')) => LineEnding::CrLf,
        _ => LineEnding::Cr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::column::parse_column_map;

    #[test]
    fn the_delimiter_is_the_one_that_shows_the_columns() {
        for (header, map, expected) in [
            ("sku,title,image_url", "", b','),
            ("sku;title;image_url", "", b';'),
            ("sku\ttitle\timage_url", "", b'\t'),
            ("sku|title|image_url", "", b'|'),
            ("sku|title|image_url|a,b,c,d,e", "", b'|'),
            ("\"a,b,c,d\";sku;title;image_url", "", b';'),
            (
                "Artikel;Name, kurz, lang, sehr lang;Bild",
                "sku=Artikel;title=Name, kurz, lang, sehr lang;image_url=Bild",
                b';',
            ),
            ("a;b;c,d", "", b';'),
            ("\"a;b;c;d\",e", "", b','),
            ("a", "", b','),
        ] {
            let map = parse_column_map(map).unwrap();
            assert_eq!(delimiter(header.as_bytes(), &map), expected, "{header}");
        }
    }
}
