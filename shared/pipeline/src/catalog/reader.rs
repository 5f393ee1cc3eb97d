//! From the bytes of an object to the records of a catalog, whatever program wrote it.
//!
//! ```text
//! bytes ─▶ signature (is this text at all?) ─▶ gzip ─▶ decode (UTF-8) ─▶ sep=, delimiter ─▶ records
//! ```
//!
//! [`CatalogReader`] pulls chunks from the store through all of these in one pass, with memory for a few chunks and one
//! record. What it finds depends on the bytes alone, so that whoever reads the same object again reads the same records.

use bytes::{Buf as _, Bytes};
use futures::{StreamExt as _, stream, stream::BoxStream};

use super::{
    decode::Decoder,
    gzip,
    records::{CTRL_Z, MAX_RECORD_BYTES, Record, Records, Step},
    signature,
};
use crate::model::format::{Compression, Format, LineEnding};
use crate::{
    catalog::columns::Columns,
    model::{catalog_error::NotACatalog, column::ColumnMap},
    ports::{Body, StoreError},
};

/// What the looks at a file's beginning need: enough for a ZIP archive to name its first entry.
const HEAD_BYTES: usize = 2 * 1024;
/// What may part columns; where nothing else decides, the first of them.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

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

/// Reads the records of one object in one pass.
pub struct CatalogReader {
    text: Text,
    /// Decoded, and not parsed yet.
    chunk: Bytes,
    map: ColumnMap,
    format: Format,
    started: bool,
    records: Records,
}

impl CatalogReader {
    /// Reads from the start of an object.
    #[must_use]
    pub fn new(body: Body<'static>) -> Self {
        Self::with_map(body, ColumnMap::new())
    }

    /// As [`CatalogReader::new`], knowing what a person said about the columns: the delimiter is the one that shows them.
    #[must_use]
    pub fn with_map(body: Body<'static>, map: ColumnMap) -> Self {
        Self {
            text: Text::new(body),
            chunk: Bytes::new(),
            map,
            format: Format::default(),
            started: false,
            records: Records::new(b',', 0),
        }
    }

    /// What the file turned out to be, as far as it has been read.
    #[must_use]
    pub fn format(&self) -> Format {
        Format { encoding: self.text.decoder.encoding(), ..self.format.clone() }
    }

    /// The next record that is not blank; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        if !self.started {
            self.start().await?;
        }
        loop {
            if self.chunk.is_empty() {
                self.chunk = self.pull().await?;
            }
            let (used, step) = self.records.read(&self.chunk)?;
            self.chunk.advance(used);
            match step {
                Step::More => {}
                Step::End => return Ok(None),
                Step::Record => {
                    if !self.records.is_blank()? {
                        break;
                    }
                }
            }
        }
        self.records.record().map(Some).map_err(Into::into)
    }

    /// More text, or nothing at the end.
    async fn pull(&mut self) -> Result<Bytes, ReadError> {
        self.text.next().await.map_err(|error| match error {
            ReadError::NotACatalog(problem) if problem.line.is_none() => {
                let (line, byte) = self.records.place();
                problem.at(line, byte).into()
            }
            error => error,
        })
    }

    /// Looks at the beginning, up to the end of the header.
    async fn start(&mut self) -> Result<(), ReadError> {
        self.started = true;
        let mark = self.text.start(&mut self.format).await?;
        let mut head = self.chunk_of(HEAD_BYTES).await?;
        if let Some(problem) = signature::refuse_text(&head) {
            return Err(problem.into());
        }
        let separator = separator(&head);
        if let Some((_, line)) = separator {
            self.format.line_ending = line_ending(&head[..line]);
        }
        let skipped = separator.map_or(0, |(_, line)| line);
        // What comes in one piece from the store seldom ends within the header.
        while header(&head[skipped..]).is_none() && head.len() < MAX_RECORD_BYTES && !self.text.decoder.is_stuck() {
            let more = self.text.next().await?;
            if more.is_empty() {
                break;
            }
            head = [&*head, &*more].concat().into();
        }
        let line = header(&head[skipped..]).unwrap_or(&head[skipped..]);
        let delimiter = separator.map_or_else(|| delimiter(line, &self.map), |(delimiter, _)| delimiter);
        self.format.delimiter = char::from(delimiter);
        self.format.line_ending = self.format.line_ending.or_else(|| line_ending(&head));
        self.records = Records::new(delimiter, mark);
        self.records.skip(&head[..skipped]);
        self.chunk = head.slice(skipped..);
        Ok(())
    }

    async fn chunk_of(&mut self, bytes: usize) -> Result<Bytes, ReadError> {
        let mut chunk = Bytes::new();
        // What is wrong further on is said when the reading comes there, with its line.
        while chunk.len() < bytes && !self.text.decoder.is_stuck() {
            let more = self.text.next().await?;
            if more.is_empty() {
                break;
            }
            chunk = if chunk.is_empty() { more } else { [&*chunk, &*more].concat().into() };
        }
        Ok(chunk)
    }
}

/// The text of an object, as UTF-8, without what is not text at its beginning and its end.
struct Text {
    bytes: BoxStream<'static, Result<Bytes, ReadError>>,
    /// What `bytes` reads from, until its beginning has been seen.
    body: Option<Body<'static>>,
    decoder: Decoder,
    ended: bool,
    /// A Ctrl-Z that may be the last character.
    held: bool,
}

impl Text {
    fn new(body: Body<'static>) -> Self {
        Self {
            bytes: stream::empty().boxed(),
            body: Some(body),
            decoder: Decoder::new(&[]).0,
            ended: false,
            held: false,
        }
    }

    /// Looks at the first bytes; answers with the length of the byte order mark.
    async fn start(&mut self, format: &mut Format) -> Result<u64, ReadError> {
        let Some(mut body) = self.body.take() else { return Ok(0) };
        let head = gather(&mut body).await?;
        let whole = stream::iter([Ok(head.clone())]).chain(body);
        let mut head = head;
        if head.starts_with(&[0x1f, 0x8b]) {
            format.compression = Some(Compression::Gzip);
            self.bytes = gzip::unpack(whole.boxed());
            head = gather(&mut self.bytes).await?;
            let rest = std::mem::replace(&mut self.bytes, stream::empty().boxed());
            self.bytes = stream::iter([Ok(head.clone())]).chain(rest).boxed();
        } else {
            self.bytes = whole.map(|chunk| chunk.map_err(ReadError::from)).boxed();
        }
        if let Some(problem) = signature::refuse(&head) {
            return Err(problem.into());
        }
        let (decoder, mark) = Decoder::new(&head);
        self.decoder = decoder;
        if mark > 0 {
            // The first chunk is the head, which holds the whole mark.
            let rest = std::mem::replace(&mut self.bytes, stream::empty().boxed());
            let mut first = true;
            let unmarked = rest.map(move |chunk| {
                let skip = if std::mem::take(&mut first) { mark } else { 0 };
                chunk.map(|chunk| chunk.slice(skip.min(chunk.len())..))
            });
            self.bytes = unmarked.boxed();
        }
        Ok(mark as u64)
    }

    /// More text; nothing at the end.
    async fn next(&mut self) -> Result<Bytes, ReadError> {
        loop {
            if let Some(problem) = self.decoder.problem() {
                return Err(problem.into());
            }
            if self.ended {
                return Ok(Bytes::new());
            }
            let chunk = self.bytes.next().await.transpose()?;
            self.ended = chunk.is_none();
            let mut text = self.decoder.decode(chunk.unwrap_or_default(), self.ended);
            if self.held && !text.is_empty() {
                text = [&[CTRL_Z as u8], &*text].concat().into();
                self.held = false;
            }
            if text.last() == Some(&(CTRL_Z as u8)) {
                text.truncate(text.len() - 1);
                self.held = true;
            }
            if !text.is_empty() {
                return Ok(text);
            }
        }
    }
}

/// The first bytes of a stream; fewer only at its end.
async fn gather<E>(bytes: &mut BoxStream<'static, Result<Bytes, E>>) -> Result<Bytes, E> {
    let mut head = Bytes::new();
    while head.len() < HEAD_BYTES {
        match bytes.next().await.transpose()? {
            Some(chunk) if head.is_empty() => head = chunk,
            Some(chunk) => head = [&*head, &*chunk].concat().into(),
            None => break,
        }
    }
    Ok(head)
}

/// Excel's `sep=;` as the first line: the delimiter, and where the next line begins.
fn separator(head: &[u8]) -> Option<(u8, usize)> {
    let end = memchr::memchr2(b'\n', b'\r', head)?;
    let next = end + if head[end..].starts_with(b"\r\n") { 2 } else { 1 };
    let line = head[..end].trim_ascii();
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    let (word, value) = line.split_at_checked(4)?;
    match value {
        _ if !word.eq_ignore_ascii_case(b"sep=") => None,
        // The tab has been trimmed.
        [] => Some((b'\t', next)),
        &[delimiter] if delimiter.is_ascii_punctuation() && delimiter != b'"' => Some((delimiter, next)),
        _ => None,
    }
}

/// The first line that is not blank, if it is there whole. Line ends between quotation marks are part of it.
fn header(text: &[u8]) -> Option<&[u8]> {
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

/// The delimiter that shows the columns a catalog needs; else the most frequent one.
fn delimiter(header: &[u8], map: &ColumnMap) -> u8 {
    let shows = |&delimiter: &u8| {
        let mut records = Records::new(delimiter, 0);
        let whole = [header, b"\n"].concat();
        match records.read(&whole) {
            Ok((_, Step::Record)) => records
                .record()
                .is_ok_and(|record| Columns::suffice(&record.fields().map(str::trim).collect::<Vec<_>>(), map)),
            _ => false,
        }
    };
    if let Some(delimiter) = DELIMITERS.into_iter().find(shows) {
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
    // Of equal counts the last is taken, so the comma comes last.
    let most = DELIMITERS.into_iter().zip(counts).rev().max_by_key(|&(_, count)| count);
    most.map_or(b',', |(delimiter, _)| delimiter)
}

fn line_ending(text: &[u8]) -> Option<LineEnding> {
    let end = memchr::memchr2(b'\n', b'\r', text)?;
    Some(match (text[end], text.get(end + 1)) {
        (b'\n', _) => LineEnding::Lf,
        (_, Some(b'\n')) => LineEnding::CrLf,
        _ => LineEnding::Cr,
    })
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
