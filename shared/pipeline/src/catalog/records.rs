//! Parses UTF-8 text into CSV records of bounded size.
//!
//! [`RecordParser`] wraps `csv_core` and does no I/O. It adds three things: the physical line and the byte offset of each
//! record, limits on bytes and columns, and the detection of text behind a closing quotation mark.

use csv_core::ReadRecordResult;

use crate::model::catalog_error::CatalogError;

/// The longest record, in bytes. It must fit into a queue message together with its request.
pub const MAX_RECORD_BYTES: usize = 128 * 1024;
/// The largest number of columns, which is that of spreadsheets.
const MAX_COLUMNS: usize = 16_384;

/// One record of the file: the header, or a row.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    text: &'a str,
    ends: &'a [usize],
    /// The physical line on which the record begins, from 1.
    pub line: u64,
    /// The record's byte offset in the unpacked, decoded text.
    pub byte: u64,
    /// Whether text follows a closing quotation mark, so that the end of the field is ambiguous.
    pub stray_quote: bool,
}

impl<'a> Record<'a> {
    /// The number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the record is blank. White space counts as blank, and so does a Ctrl-Z.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.chars().all(|c| c.is_whitespace() || c == CTRL_Z)
    }

    /// Whether the record may contain a control character: it has a byte that is one, or that can begin one. Saves most
    /// records the check of every character.
    #[must_use]
    pub fn may_hold_controls(&self) -> bool {
        any(self.text, |b| b < b' ' || b == 0x7f || b == 0xc2)
    }

    /// One field, without its quotation marks.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start..end)
    }

    /// All fields in order.
    pub fn fields(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let record = *self;
        (0..record.len()).filter_map(move |index| record.get(index))
    }

    /// The physical line on which the record ends, from 1.
    #[must_use]
    pub fn last_line(&self) -> u64 {
        self.line + Lines::within(self.text.as_bytes())
    }
}

/// Whether a text consists of printable ASCII only.
pub(crate) fn is_plain(text: &str) -> bool {
    !any(text, |b| !matches!(b, b' '..=b'~'))
}

fn any(text: &str, is: impl Fn(u8) -> bool) -> bool {
    // Without an early return, so that the loop is vectorised.
    text.bytes().fold(false, |found, b| found | is(b))
}

/// The end-of-file character of DOS, which some programs still write.
pub(super) const CTRL_Z: char = '\u{1a}';

/// What the parser found in its input.
pub(super) enum ParseStep {
    /// The input is used up, and no record is complete.
    NeedsInput,
    /// A record is complete.
    Record,
    /// The text has ended.
    End,
}

/// Parses records one at a time and holds the current one.
pub(super) struct RecordParser {
    parser: csv_core::Reader,
    /// The fields of the current record without separators. Grows to the longest record so far.
    fields: Vec<u8>,
    /// How many bytes of `fields` are in use.
    filled: usize,
    /// Where each field ends in `fields`.
    ends: Vec<usize>,
    /// How many entries of `ends` are in use.
    fields_ended: usize,
    lines: Lines,
    quotes: QuoteTracker,
    /// Whether the parser is between two records, where line ends are blank lines.
    between: bool,
    /// The physical line on which the current record begins.
    line: u64,
    /// The byte offset at which the current record begins.
    byte: u64,
    /// The byte offset of the next input.
    offset: u64,
}

impl RecordParser {
    /// Starts at line 1, after a byte order mark of `offset` bytes.
    pub(super) fn new(delimiter: u8, offset: u64) -> Self {
        Self {
            parser: csv_core::ReaderBuilder::new().delimiter(delimiter).build(),
            fields: vec![0; 4 * 1024],
            filled: 0,
            ends: vec![0; 64],
            fields_ended: 0,
            lines: Lines::default(),
            quotes: QuoteTracker { delimiter, at: Quoting::FieldStart, stray: false },
            between: true,
            line: 1,
            byte: offset,
            offset,
        }
    }

    /// The physical line and the byte offset of the next input.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.lines.current, self.offset)
    }

    /// Advances over text without parsing it.
    pub(super) fn skip(&mut self, bytes: &[u8]) {
        self.lines.count(bytes);
        self.offset += bytes.len() as u64;
    }

    /// Parses `input` up to the end of a record and returns how many bytes it used. An empty input means the end of the file.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<(usize, ParseStep), CatalogError> {
        let mut used = 0;
        if self.between {
            let blank = input.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            self.skip(&input[..blank]);
            used = blank;
            if used == input.len() && !input.is_empty() {
                return Ok((used, ParseStep::NeedsInput));
            }
            self.between = false;
            self.filled = 0;
            self.fields_ended = 0;
            self.line = self.lines.current;
            self.byte = self.offset;
            self.quotes.at = Quoting::FieldStart;
            self.quotes.stray = false;
        }
        if input.is_empty() && self.quotes.at == Quoting::Inside {
            return Err(self.unclosed_quote("the file ends before it is closed"));
        }
        loop {
            let (result, read, written, ended) = self.parser.read_record(
                &input[used..],
                &mut self.fields[self.filled..],
                &mut self.ends[self.fields_ended..],
            );
            let taken = &input[used..used + read];
            self.quotes.scan(taken);
            self.skip(taken);
            used += read;
            self.filled += written;
            self.fields_ended += ended;
            match result {
                ReadRecordResult::InputEmpty => return Ok((used, ParseStep::NeedsInput)),
                ReadRecordResult::OutputFull if grow(&mut self.fields, MAX_RECORD_BYTES) => {}
                ReadRecordResult::OutputFull if self.quotes.at == Quoting::Inside => {
                    return Err(self.unclosed_quote(&format!("no other follows within {MAX_RECORD_BYTES} bytes")));
                }
                ReadRecordResult::OutputFull => {
                    let what =
                        format!("the record that begins here is longer than {MAX_RECORD_BYTES} bytes; shorten it");
                    return Err(CatalogError::new("record_too_large", what).at(self.line, self.byte));
                }
                ReadRecordResult::OutputEndsFull if grow(&mut self.ends, MAX_COLUMNS) => {}
                ReadRecordResult::OutputEndsFull => {
                    let what = format!("the record that begins here has more than {MAX_COLUMNS} columns; remove some");
                    return Err(CatalogError::new("record_too_large", what).at(self.line, self.byte));
                }
                ReadRecordResult::Record => {
                    self.between = true;
                    return Ok((used, ParseStep::Record));
                }
                ReadRecordResult::End => return Ok((used, ParseStep::End)),
            }
        }
    }

    /// Whether the current record is empty, as in [`Record::is_empty`].
    pub(super) fn is_blank(&self) -> Result<bool, CatalogError> {
        let begins = self.fields[..self.filled].first().is_some_and(u8::is_ascii_graphic);
        Ok(!begins && self.record()?.is_empty())
    }

    /// The current record.
    pub(super) fn record(&self) -> Result<Record<'_>, CatalogError> {
        let bytes = &self.fields[..self.filled];
        // The text was decoded before it was parsed, and the parser cuts at ASCII bytes only.
        let text = std::str::from_utf8(bytes)
            .map_err(|_| CatalogError::new("not_utf8", "the record cannot be read as text").at(self.line, self.byte))?;
        let ends = &self.ends[..self.fields_ended];
        Ok(Record { text, ends, line: self.line, byte: self.byte, stray_quote: self.quotes.stray })
    }

    /// Reports an open quotation mark with the line on which its field begins. That is after the last complete field, whose
    /// line ends are all inside quotation marks.
    fn unclosed_quote(&self, how: &str) -> CatalogError {
        let begin = self.fields_ended.checked_sub(1).map_or(0, |last| self.ends[last]);
        let line = self.line + Lines::within(&self.fields[..begin.min(self.filled)]);
        let column = self.fields_ended + 1;
        let what = format!(
            "a quotation mark opens field {column} here and {how}; close it, or write it twice (\"\") if it belongs to the text"
        );
        CatalogError::new("unclosed_quote", what).at(line, self.byte)
    }
}

/// Doubles a buffer up to `limit` elements. Returns `false` if it is already that large.
fn grow<T: Clone + Default>(buffer: &mut Vec<T>, limit: usize) -> bool {
    let may_grow = buffer.len() < limit;
    buffer.resize((buffer.len() * 2).min(limit), T::default());
    may_grow
}

/// Tracks quotation marks in the raw text, to detect text behind a closing one. `csv_core` accepts `"a"b`. It is refused
/// here, because a forgotten quotation mark joins two rows in just this way.
struct QuoteTracker {
    delimiter: u8,
    at: Quoting,
    /// Whether the current record has text behind a closing quotation mark.
    stray: bool,
}

/// The position in a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    FieldStart,
    /// In a field without quotation marks.
    Outside,
    /// Between quotation marks.
    Inside,
    /// After a quotation mark, which closes the field unless a second one follows.
    AfterQuote,
}

impl QuoteTracker {
    fn scan(&mut self, bytes: &[u8]) {
        let ends_field = |byte: u8| byte == self.delimiter || matches!(byte, b'\r' | b'\n');
        let mut from = 0;
        while from < bytes.len() {
            let next = memchr::memchr(b'"', &bytes[from..]).map(|found| from + found);
            self.at = match (self.at, next) {
                (Quoting::Inside, Some(quote)) => {
                    from = quote + 1;
                    Quoting::AfterQuote
                }
                (Quoting::Inside, None) => return,
                (Quoting::AfterQuote, Some(quote)) if quote == from => {
                    from += 1;
                    Quoting::Inside
                }
                (Quoting::AfterQuote, _) => {
                    let closed = ends_field(bytes[from]);
                    self.stray |= !closed;
                    from += 1;
                    if closed { Quoting::FieldStart } else { Quoting::Outside }
                }
                (at, Some(quote)) => {
                    let opens = if quote == from { at == Quoting::FieldStart } else { ends_field(bytes[quote - 1]) };
                    from = quote + 1;
                    if opens { Quoting::Inside } else { Quoting::Outside }
                }
                (_, None) => {
                    from = bytes.len();
                    if ends_field(bytes[from - 1]) { Quoting::FieldStart } else { Quoting::Outside }
                }
            };
        }
    }
}

/// Counts physical lines, which end with LF, CRLF or CR.
struct Lines {
    /// The current line, from 1.
    current: u64,
    /// Whether the last byte was a CR, which a LF may follow.
    after_cr: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self { current: 1, after_cr: false }
    }
}

impl Lines {
    fn count(&mut self, bytes: &[u8]) {
        let Some(&last) = bytes.last() else { return };
        for at in memchr::memchr2_iter(b'\n', b'\r', bytes) {
            let continues =
                bytes[at] == b'\n' && at.checked_sub(1).map_or(self.after_cr, |before| bytes[before] == b'\r');
            self.current += u64::from(!continues);
        }
        self.after_cr = last == b'\r';
    }

    /// The number of line ends in a text.
    fn within(bytes: &[u8]) -> u64 {
        let mut lines = Self::default();
        lines.count(bytes);
        lines.current - 1
    }
}
