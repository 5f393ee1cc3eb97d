//! From UTF-8 text to records, each bounded in bytes.

use csv_core::ReadRecordResult;

use crate::model::catalog_error::NotACatalog;

/// The longest record, in bytes: what fits into a queue message with its request beside it.
pub const MAX_RECORD_BYTES: usize = 128 * 1024;
/// The most columns; spreadsheets stop at 16,384.
const MAX_COLUMNS: usize = 16_384;

/// One record of the file: the header, or a row.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    text: &'a str,
    ends: &'a [usize],
    /// The physical line on which it begins, from 1.
    pub line: u64,
    /// Where it begins, in bytes from the start of the (unpacked, decoded) text.
    pub byte: u64,
    /// Text follows a closing quotation mark, so that nobody can say where the field ends.
    pub stray_quote: bool,
}

impl<'a> Record<'a> {
    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is nothing in it: white space, or what spreadsheets leave of an empty row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.chars().all(|c| c.is_whitespace() || c == CTRL_Z)
    }

    /// Whether there may be a control character in it. Most records hold no byte that could be one, or begin one.
    #[must_use]
    pub fn may_hold_controls(&self) -> bool {
        any(self.text, |b| b < b' ' || b == 0x7f || b == 0xc2)
    }

    /// One field, unquoted.
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

    /// The physical line on which it ends.
    #[must_use]
    pub fn last_line(&self) -> u64 {
        self.line + Lines::within(self.text.as_bytes())
    }
}

/// Whether a text is all printable ASCII.
pub(crate) fn is_plain(text: &str) -> bool {
    !any(text, |b| !matches!(b, b' '..=b'~'))
}

fn any(text: &str, is: impl Fn(u8) -> bool) -> bool {
    // To the end, whatever it finds, because the processor does that with many bytes at once.
    text.bytes().fold(false, |found, b| found | is(b))
}

/// The end of a file, to DOS and to some who still write like it.
pub(super) const CTRL_Z: char = '\u{1a}';

pub(super) enum Step {
    More,
    Record,
    End,
}

/// The parser and its one record, without input or output of its own.
pub(super) struct Records {
    parser: csv_core::Reader,
    /// The fields of the current record, one after the other; grows to the longest record seen.
    fields: Vec<u8>,
    filled: usize,
    ends: Vec<usize>,
    fields_ended: usize,
    lines: Lines,
    quotes: Quotes,
    /// Between two records: line ends here are blank lines.
    between: bool,
    line: u64,
    /// Where the current record begins.
    byte: u64,
    offset: u64,
}

impl Records {
    /// Begins at line 1, behind a byte order mark of `offset` bytes.
    pub(super) fn new(delimiter: u8, offset: u64) -> Self {
        Self {
            parser: csv_core::ReaderBuilder::new().delimiter(delimiter).build(),
            fields: vec![0; 4 * 1024],
            filled: 0,
            ends: vec![0; 64],
            fields_ended: 0,
            lines: Lines::default(),
            quotes: Quotes { delimiter, at: Quoting::FieldStart, stray: false },
            between: true,
            line: 1,
            byte: offset,
            offset,
        }
    }

    /// Where the reading stands: line and byte.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.lines.current, self.offset)
    }

    /// Passes over text that is no record.
    pub(super) fn skip(&mut self, bytes: &[u8]) {
        self.lines.count(bytes);
        self.offset += bytes.len() as u64;
    }

    /// Reads on in `input` (empty means the end of the file) up to the end of a record.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<(usize, Step), NotACatalog> {
        let mut used = 0;
        if self.between {
            let blank = input.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            self.skip(&input[..blank]);
            used = blank;
            if used == input.len() && !input.is_empty() {
                return Ok((used, Step::More));
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
                ReadRecordResult::InputEmpty => return Ok((used, Step::More)),
                ReadRecordResult::OutputFull if grow(&mut self.fields, MAX_RECORD_BYTES) => {}
                ReadRecordResult::OutputFull if self.quotes.at == Quoting::Inside => {
                    return Err(self.unclosed_quote(&format!("no other follows within {MAX_RECORD_BYTES} bytes")));
                }
                ReadRecordResult::OutputFull => {
                    let what =
                        format!("the record that begins here is longer than {MAX_RECORD_BYTES} bytes; shorten it");
                    return Err(NotACatalog::new("record_too_large", what).at(self.line, self.byte));
                }
                ReadRecordResult::OutputEndsFull if grow(&mut self.ends, MAX_COLUMNS) => {}
                ReadRecordResult::OutputEndsFull => {
                    let what = format!("the record that begins here has more than {MAX_COLUMNS} columns; remove some");
                    return Err(NotACatalog::new("record_too_large", what).at(self.line, self.byte));
                }
                ReadRecordResult::Record => {
                    self.between = true;
                    return Ok((used, Step::Record));
                }
                ReadRecordResult::End => return Ok((used, Step::End)),
            }
        }
    }

    /// Whether the record is of the kind that [`Record::is_empty`] tells.
    pub(super) fn is_blank(&self) -> Result<bool, NotACatalog> {
        let begins = self.fields[..self.filled].first().is_some_and(u8::is_ascii_graphic);
        Ok(!begins && self.record()?.is_empty())
    }

    pub(super) fn record(&self) -> Result<Record<'_>, NotACatalog> {
        let bytes = &self.fields[..self.filled];
        // The text was decoded before it was parsed, and the parser cuts at ASCII bytes only.
        let text = std::str::from_utf8(bytes)
            .map_err(|_| NotACatalog::new("not_utf8", "the record cannot be read as text").at(self.line, self.byte))?;
        let ends = &self.ends[..self.fields_ended];
        Ok(Record { text, ends, line: self.line, byte: self.byte, stray_quote: self.quotes.stray })
    }

    /// The field that is open began after the last one that ended; only quoted fields hold line ends.
    fn unclosed_quote(&self, how: &str) -> NotACatalog {
        let begin = self.fields_ended.checked_sub(1).map_or(0, |last| self.ends[last]);
        let line = self.line + Lines::within(&self.fields[..begin.min(self.filled)]);
        let column = self.fields_ended + 1;
        let what = format!(
            "a quotation mark opens field {column} here and {how}; close it, or write it twice (\"\") if it belongs to the text"
        );
        NotACatalog::new("unclosed_quote", what).at(line, self.byte)
    }
}

/// Doubles a buffer; `false` where it may not grow any more.
fn grow<T: Clone + Default>(buffer: &mut Vec<T>, limit: usize) -> bool {
    let may = buffer.len() < limit;
    buffer.resize((buffer.len() * 2).min(limit), T::default());
    may
}

/// Where the raw text stands with regard to quotation marks. The parser reads `"a"b` as it can; we refuse it, because a
/// forgotten quotation mark makes one row of two in just this way.
struct Quotes {
    delimiter: u8,
    at: Quoting,
    stray: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    FieldStart,
    Outside,
    Inside,
    /// The field is closed, unless another one follows.
    AfterQuote,
}

impl Quotes {
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

/// Counts physical lines: LF, CRLF and CR each end one.
struct Lines {
    current: u64,
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

    fn within(bytes: &[u8]) -> u64 {
        let mut lines = Self::default();
        lines.count(bytes);
        lines.current - 1
    }
}
