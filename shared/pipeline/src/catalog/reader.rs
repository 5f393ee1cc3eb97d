//! Reads the records of a catalog from the bytes of an object, whatever program wrote the file.
//!
//! [`CatalogReader`] pulls chunks from the store through decoding and parsing in one pass, with memory for a few chunks and
//! one record. The records depend on the bytes alone, so every read of the same object gives the same records.

use bytes::{Buf as _, Bytes};

pub use super::read_error::ReadError;
use super::{
    dialect,
    records::{MAX_RECORD_BYTES, ParseStep, Record, RecordParser},
    signature,
    text_stream::{HEAD_BYTES, TextStream},
};
use crate::{
    model::{column::ColumnMap, format::Format},
    ports::Body,
};

/// Reads the records of one object in one pass.
pub struct CatalogReader {
    text: TextStream,
    /// Text that is decoded and not parsed yet.
    chunk: Bytes,
    map: ColumnMap,
    format: Format,
    started: bool,
    parser: RecordParser,
}

impl CatalogReader {
    /// Reads an object from its start.
    #[must_use]
    pub fn new(body: Body<'static>) -> Self {
        Self::with_map(body, ColumnMap::new())
    }

    /// As [`CatalogReader::new`], with a column map, which helps to detect the delimiter.
    #[must_use]
    pub fn with_map(body: Body<'static>, map: ColumnMap) -> Self {
        Self {
            text: TextStream::new(body),
            chunk: Bytes::new(),
            map,
            format: Format::default(),
            started: false,
            parser: RecordParser::new(b',', 0),
        }
    }

    /// The detected format. The encoding can still change while the file is being read.
    #[must_use]
    pub fn format(&self) -> Format {
        Format { encoding: self.text.encoding(), ..self.format.clone() }
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
            let (used, step) = self.parser.read(&self.chunk)?;
            self.chunk.advance(used);
            match step {
                ParseStep::NeedsInput => {}
                ParseStep::End => return Ok(None),
                ParseStep::Record => {
                    if !self.parser.is_blank()? {
                        break;
                    }
                }
            }
        }
        self.parser.record().map(Some).map_err(Into::into)
    }

    /// The next chunk of text, empty at the end. Adds the current place to an error that has none.
    async fn pull(&mut self) -> Result<Bytes, ReadError> {
        self.text.next().await.map_err(|error| match error {
            ReadError::Catalog(problem) if problem.line.is_none() => {
                let (line, byte) = self.parser.position();
                problem.at(line, byte).into()
            }
            error => error,
        })
    }

    /// Reads up to the end of the header and detects the dialect.
    async fn start(&mut self) -> Result<(), ReadError> {
        self.started = true;
        let mark = self.text.start(&mut self.format).await?;
        let head = self.text.extend(Bytes::new(), |text| text.len() >= HEAD_BYTES).await?;
        if let Some(problem) = signature::refuse_text(&head) {
            return Err(problem.into());
        }
        let separator = dialect::separator(&head);
        if let Some((_, line)) = separator {
            self.format.line_ending = dialect::line_ending(&head[..line]);
        }
        let skipped = separator.map_or(0, |(_, line)| line);
        // A chunk of the store seldom ends within the header.
        let has_header = |text: &[u8]| dialect::header(&text[skipped..]).is_some() || text.len() >= MAX_RECORD_BYTES;
        let head = self.text.extend(head, has_header).await?;
        let line = dialect::header(&head[skipped..]).unwrap_or(&head[skipped..]);
        let delimiter = separator.map_or_else(|| dialect::delimiter(line, &self.map), |(delimiter, _)| delimiter);
        self.format.delimiter = char::from(delimiter);
        self.format.line_ending = self.format.line_ending.or_else(|| dialect::line_ending(&head));
        self.parser = RecordParser::new(delimiter, mark);
        self.parser.skip(&head[..skipped]);
        self.chunk = head.slice(skipped..);
        Ok(())
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
