//! Decodes bytes to UTF-8 and detects the encoding, by the byte order mark, else by validity.
//!
//! A file without a mark is UTF-8 until an invalid byte appears. If all text before it is ASCII, which both encodings write
//! alike, the whole file is Windows-1252. Otherwise the file mixes encodings. Either choice would silently garble names, so
//! such a file is refused.

use bytes::Bytes;
use encoding_rs::{DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::model::catalog_error::CatalogError;
use crate::model::format::Encoding;

/// Decodes one file, chunk by chunk.
pub(super) struct Decoder {
    encoding: Encoding,
    /// Whether the encoding is certain: there was a byte order mark, or a valid UTF-8 character beyond ASCII.
    certain: bool,
    /// The decoder of UTF-16 and Windows-1252; `None` for UTF-8.
    decoder: Option<encoding_rs::Decoder>,
    /// The first bytes of a character that the next chunk completes.
    carry: Bytes,
    /// The error that follows the text decoded so far.
    problem: Option<CatalogError>,
}

impl Decoder {
    /// Creates a decoder from the first bytes of a file. Also returns the length of the byte order mark.
    pub(super) fn new(head: &[u8]) -> (Self, usize) {
        let (encoding, mark) = match head {
            [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
            [0xff, 0xfe, ..] => (Encoding::Utf16Le, 2),
            [0xfe, 0xff, ..] => (Encoding::Utf16Be, 2),
            _ => (Encoding::Utf8, 0),
        };
        let decoder = match encoding {
            Encoding::Utf16Le => Some(UTF_16LE.new_decoder_without_bom_handling()),
            Encoding::Utf16Be => Some(UTF_16BE.new_decoder_without_bom_handling()),
            Encoding::Utf8 | Encoding::Windows1252 => None,
        };
        (Self { encoding, certain: mark > 0, decoder, carry: Bytes::new(), problem: None }, mark)
    }

    /// The encoding, as far as detected.
    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Takes the error that ends decoding, if there is one.
    pub(super) fn problem(&mut self) -> Option<CatalogError> {
        self.problem.take()
    }

    /// Whether an error ends decoding.
    pub(super) fn is_stuck(&self) -> bool {
        self.problem.is_some()
    }

    /// Decodes a chunk. The last chunk may be empty.
    pub(super) fn decode(&mut self, chunk: Bytes, last: bool) -> Bytes {
        if self.decoder.is_some() {
            return self.convert(&chunk, last);
        }
        let mut chunk = if self.carry.is_empty() { chunk } else { [&*self.carry, &*chunk].concat().into() };
        self.carry = Bytes::new();
        let Err(error) = std::str::from_utf8(&chunk) else {
            self.certain |= !chunk.is_ascii();
            return chunk;
        };
        let rest = chunk.split_off(error.valid_up_to());
        self.certain |= !chunk.is_ascii();
        if error.error_len().is_none() && !last {
            self.carry = rest;
            return chunk;
        }
        if self.certain {
            self.problem = Some(CatalogError::new(
                "not_utf8",
                "a character here is not UTF-8, while the text before it is; the file mixes encodings. \
                 Save it as \"CSV UTF-8\" and drop it again",
            ));
            return chunk;
        }
        self.encoding = Encoding::Windows1252;
        self.decoder = Some(WINDOWS_1252.new_decoder_without_bom_handling());
        let rest = self.convert(&rest, last);
        if chunk.is_empty() { rest } else { [&*chunk, &*rest].concat().into() }
    }

    fn convert(&mut self, chunk: &[u8], last: bool) -> Bytes {
        let Some(decoder) = &mut self.decoder else { return Bytes::new() };
        // The maximum that these encodings can need. It overflows only for an input that does not fit into memory.
        let capacity = decoder.max_utf8_buffer_length_without_replacement(chunk.len()).unwrap_or(0);
        let mut text = vec![0; capacity];
        let (result, _, written) = decoder.decode_to_utf8_without_replacement(chunk, &mut text, last);
        text.truncate(written);
        if result != DecoderResult::InputEmpty {
            self.problem = Some(CatalogError::new(
                "not_utf16",
                "a character here is not UTF-16, although the file begins as such. Save it as \"CSV UTF-8\" and drop it again",
            ));
        }
        text.into()
    }
}
