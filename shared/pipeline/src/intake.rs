//! From the bytes of an object to the records of a catalog.
//!
//! [`CatalogReader`] pulls chunks from the store and cuts them into records; a record is bounded in bytes, so that an
//! unclosed quote cannot swallow the file or the memory. Lines are counted here, physically, as an editor shows them.

use bytes::Bytes;
use csv_core::ReadRecordResult;
use futures::StreamExt as _;

use crate::{
    job::NotACatalog,
    ports::{Body, StoreError},
};

/// The longest record, in bytes: what fits into a queue message with its request beside it.
pub const MAX_RECORD_BYTES: usize = 128 * 1024;
/// The most columns; spreadsheets stop at 16,384.
const MAX_COLUMNS: usize = 16_384;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One record of the file: the header, or a row.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    text: &'a str,
    ends: &'a [usize],
    /// The physical line on which it begins, from 1.
    pub line: u64,
}

impl<'a> Record<'a> {
    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is nothing in it but white space in a single field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.len() <= 1 && self.text.trim().is_empty()
    }

    /// One field, unquoted.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start..end)
    }

    /// All fields in order.
    pub fn fields(&self) -> impl Iterator<Item = &'a str> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be a catalog; reading it again will not help.
    #[error(transparent)]
    NotACatalog(#[from] NotACatalog),
    /// The store failed; read again from the start.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads the records of one object in one pass, with memory for one chunk and one record.
pub struct CatalogReader {
    body: Body<'static>,
    chunk: Bytes,
    /// Bytes that the next look at the chunk needs: at the start a whole byte order mark, then any.
    wants: usize,
    ended: bool,
    records: Records,
}

impl CatalogReader {
    /// Reads from the start of an object.
    #[must_use]
    pub fn new(body: Body<'static>) -> Self {
        Self { body, chunk: Bytes::new(), wants: BYTE_ORDER_MARK.len(), ended: false, records: Records::new() }
    }

    /// The next record that is not blank; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        loop {
            while !self.ended && self.chunk.len() < self.wants {
                match self.body.next().await {
                    Some(chunk) if self.chunk.is_empty() => self.chunk = chunk?,
                    Some(chunk) => self.chunk = [&*self.chunk, &*chunk?].concat().into(),
                    None => self.ended = true,
                }
            }
            if std::mem::replace(&mut self.wants, 1) > 1 && self.chunk.starts_with(BYTE_ORDER_MARK) {
                bytes::Buf::advance(&mut self.chunk, BYTE_ORDER_MARK.len());
                self.records.offset = BYTE_ORDER_MARK.len() as u64;
                continue;
            }
            let (used, step) = self.records.read(&self.chunk)?;
            bytes::Buf::advance(&mut self.chunk, used);
            match step {
                Step::More => {}
                Step::End => return Ok(None),
                Step::Record => {
                    if !self.records.record()?.is_empty() {
                        break;
                    }
                }
            }
        }
        self.records.record().map(Some).map_err(Into::into)
    }
}

enum Step {
    More,
    Record,
    End,
}

/// The parser and its one record, without input or output of its own.
struct Records {
    parser: csv_core::Reader,
    /// The fields of the current record, one after the other; grows to the longest record seen.
    fields: Vec<u8>,
    filled: usize,
    ends: Vec<usize>,
    fields_ended: usize,
    lines: Lines,
    /// Between two records: line ends here are blank lines.
    between: bool,
    line: u64,
    /// Where the current record begins, in bytes from the start of the file.
    byte: u64,
    offset: u64,
}

impl Records {
    fn new() -> Self {
        Self {
            parser: csv_core::Reader::new(),
            fields: vec![0; 4 * 1024],
            filled: 0,
            ends: vec![0; 64],
            fields_ended: 0,
            lines: Lines::default(),
            between: true,
            line: 1,
            byte: 0,
            offset: 0,
        }
    }

    /// Reads on in `input` (empty means the end of the file) up to the end of a record.
    fn read(&mut self, input: &[u8]) -> Result<(usize, Step), NotACatalog> {
        let mut used = 0;
        if self.between {
            let blank = input.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            self.take(&input[..blank]);
            used = blank;
            if used == input.len() && !input.is_empty() {
                return Ok((used, Step::More));
            }
            self.between = false;
            self.filled = 0;
            self.fields_ended = 0;
            self.line = self.lines.current;
            self.byte = self.offset;
        }
        loop {
            let (result, read, written, ended) = self.parser.read_record(
                &input[used..],
                &mut self.fields[self.filled..],
                &mut self.ends[self.fields_ended..],
            );
            self.take(&input[used..used + read]);
            used += read;
            self.filled += written;
            self.fields_ended += ended;
            match result {
                ReadRecordResult::InputEmpty => return Ok((used, Step::More)),
                ReadRecordResult::OutputFull if grow(&mut self.fields, MAX_RECORD_BYTES) => {}
                ReadRecordResult::OutputFull => return Err(self.oversized("long")),
                ReadRecordResult::OutputEndsFull if grow(&mut self.ends, MAX_COLUMNS) => {}
                ReadRecordResult::OutputEndsFull => return Err(self.oversized("wide")),
                ReadRecordResult::Record => {
                    self.between = true;
                    return Ok((used, Step::Record));
                }
                ReadRecordResult::End => return Ok((used, Step::End)),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.lines.count(bytes);
        self.offset += bytes.len() as u64;
    }

    fn record(&self) -> Result<Record<'_>, NotACatalog> {
        let bytes = &self.fields[..self.filled];
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = self.line + Lines::within(&bytes[..error.valid_up_to()]);
            NotACatalog::new("not_utf8", "the file is not UTF-8; save it as \"CSV UTF-8\" and drop it again")
                .at(line, self.byte)
        })?;
        // The parser cuts at ASCII bytes only, so every end is a character boundary.
        Ok(Record { text, ends: &self.ends[..self.fields_ended], line: self.line })
    }

    fn oversized(&self, how: &str) -> NotACatalog {
        NotACatalog::new(
            "record_too_large",
            format!(
                "the record that begins here is too {how} (more than {MAX_RECORD_BYTES} bytes or {MAX_COLUMNS} columns); \
                 is a quotation mark not closed?"
            ),
        )
        .at(self.line, self.byte)
    }
}

/// Doubles a buffer; `false` where it may not grow any more.
fn grow<T: Clone + Default>(buffer: &mut Vec<T>, limit: usize) -> bool {
    let may = buffer.len() < limit;
    buffer.resize((buffer.len() * 2).min(limit), T::default());
    may
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Read = Vec<(u64, Vec<String>)>;

    async fn read(bytes: &[u8], chunk: usize) -> Result<Read, String> {
        let chunks: Vec<_> = bytes.chunks(chunk).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        let mut reader = CatalogReader::new(futures::stream::iter(chunks).boxed());
        let mut records = Vec::new();
        while let Some(record) = reader.next().await.map_err(|e| e.to_string())? {
            records.push((record.line, record.fields().map(str::to_owned).collect()));
        }
        Ok(records)
    }

    fn record(line: u64, fields: &[&str]) -> (u64, Vec<String>) {
        (line, fields.iter().map(|&f| f.to_owned()).collect())
    }

    #[tokio::test]
    async fn records_know_their_physical_line() {
        let cases: &[(&str, Read)] = &[
            ("", vec![]),
            ("\n\n", vec![]),
            ("a,b", vec![record(1, &["a", "b"])]),
            ("\u{feff}a,b\n1,2\n", vec![record(1, &["a", "b"]), record(2, &["1", "2"])]),
            ("a\r\n\r\n\r\nb\r\n", vec![record(1, &["a"]), record(4, &["b"])]),
            ("a\rb\r\rc", vec![record(1, &["a"]), record(2, &["b"]), record(4, &["c"])]),
            ("a,\"x\r\ny\r\n\"\r\nb,\"\"\"\"", vec![record(1, &["a", "x\r\ny\r\n"]), record(4, &["b", "\""])]),
            ("a\n   \nb\n", vec![record(1, &["a"]), record(3, &["b"])]),
            (",,\n", vec![record(1, &["", "", ""])]),
        ];
        for (text, expected) in cases {
            for chunk in [1, 2, 3, 1_000] {
                assert_eq!(read(text.as_bytes(), chunk).await.as_ref(), Ok(expected), "{text:?} in chunks of {chunk}");
            }
        }
    }

    #[tokio::test]
    async fn an_unclosed_quote_is_reported_where_its_record_begins() {
        let text = format!("sku,title\na,b\nc,\"{}", "never closed\n".repeat(20_000));
        let error = read(text.as_bytes(), 4_096).await.unwrap_err();
        assert!(error.contains("line 3") && error.contains("quotation mark"), "{error}");
    }

    #[tokio::test]
    async fn bytes_that_are_not_utf8_are_reported_with_their_line() {
        let error = read(b"sku,title\na,\"x\ny\xff\"\n", 4).await.unwrap_err();
        assert!(error.contains("line 3") && error.contains("UTF-8"), "{error}");
    }

    proptest! {
        /// Whatever the csv crate writes, we read, however the store cuts it.
        #[test]
        fn reads_what_was_written(rows in proptest::collection::vec(proptest::collection::vec("[a-z,\"\r\n ü]{1,8}x", 2..5), 0..6), chunk in 1usize..40) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let bytes = writer.into_inner().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(read(&bytes, chunk)).unwrap();
            prop_assert_eq!(read.into_iter().map(|(_, fields)| fields).collect::<Vec<_>>(), rows);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), chunk in 1usize..40) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(read(&bytes, chunk));
        }
    }
}
