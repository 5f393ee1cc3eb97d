//! An object's bytes as a stream of UTF-8 text.
//!
//! [`TextStream`] looks at the first bytes, refuses files that are no text, unpacks gzip, removes the byte order mark, decodes,
//! and drops a Ctrl-Z at the end of the file.

use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::BoxStream};

use super::{decode::Decoder, gzip, read_error::ReadError, records::CTRL_Z, signature};
use crate::{
    model::format::{Compression, Encoding, Format},
    ports::Body,
};

/// How many bytes of a file are inspected before it is read: enough for the first entry's name in a ZIP archive.
pub(super) const HEAD_BYTES: usize = 2 * 1024;

/// The text of an object, chunk by chunk.
pub(super) struct TextStream {
    bytes: BoxStream<'static, Result<Bytes, ReadError>>,
    /// What `bytes` will read from; `None` once [`TextStream::start`] has inspected its beginning.
    body: Option<Body<'static>>,
    decoder: Decoder,
    ended: bool,
    /// Whether a Ctrl-Z is withheld, because it may be the last character.
    withheld: bool,
}

impl TextStream {
    pub(super) fn new(body: Body<'static>) -> Self {
        Self {
            bytes: stream::empty().boxed(),
            body: Some(body),
            decoder: Decoder::new(&[]).0,
            ended: false,
            withheld: false,
        }
    }

    /// Inspects the first bytes and notes the compression in `format`. Returns the length of the byte order mark.
    pub(super) async fn start(&mut self, format: &mut Format) -> Result<u64, ReadError> {
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

    /// The next chunk of text; empty at the end.
    pub(super) async fn next(&mut self) -> Result<Bytes, ReadError> {
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
            if self.withheld && !text.is_empty() {
                text = [&[CTRL_Z as u8], &*text].concat().into();
                self.withheld = false;
            }
            if text.last() == Some(&(CTRL_Z as u8)) {
                text.truncate(text.len() - 1);
                self.withheld = true;
            }
            if !text.is_empty() {
                return Ok(text);
            }
        }
    }

    /// Reads on until `text` satisfies `is_enough`, the text ends, or no more of it can be decoded. The error of what cannot
    /// be decoded comes from [`TextStream::next`], when the reader arrives there and knows its line.
    pub(super) async fn extend(
        &mut self,
        mut text: Bytes,
        is_enough: impl Fn(&[u8]) -> bool,
    ) -> Result<Bytes, ReadError> {
        while !is_enough(&text) && !self.decoder.is_stuck() {
            let more = self.next().await?;
            if more.is_empty() {
                break;
            }
            text = if text.is_empty() { more } else { [&*text, &*more].concat().into() };
        }
        Ok(text)
    }

    /// The encoding, as far as the text was read.
    pub(super) fn encoding(&self) -> Encoding {
        self.decoder.encoding()
    }
}

/// Reads at least [`HEAD_BYTES`]; fewer only at the end of the stream.
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
