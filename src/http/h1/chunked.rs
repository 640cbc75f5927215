//! Finds the end of a chunked body (RFC 9112 §7.1) without storing it.

use super::field_lines::{Event, FieldLines};
use super::grammar::{TOKEN, VALUE};
use crate::http::rejection::DetailedRejection;

/// The most digits of a size: what 64 bits hold.
const DIGITS_MAX: usize = 16;
/// The longest extensions of one chunk. They are not used in practice, except to send much data that counts as
/// nothing.
const EXTENSIONS_MAX: usize = 256;
/// The longest trailer section, with its empty line.
const TRAILERS_MAX: usize = 8 * 1024;

/// Follows a chunked body as its bytes arrive; data is skipped.
#[derive(Clone, Debug, Default)]
pub struct Chunked {
    part: Part,
    /// The size of the current chunk, then the rest of its data.
    size: u64,
    /// The length of the digits, extensions or trailers so far.
    length: usize,
}

/// The result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The number of given bytes that belong to the body: all, unless it ended.
    pub consumed: usize,
    /// The number of these that are data.
    pub data: u64,
    /// Whether the body ended.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    #[default]
    Size,
    Extension(Extension),
    /// After the CR of a size.
    SizeEnd,
    Data,
    DataCarriageReturn,
    DataLineFeed,
    Trailers(FieldLines),
    Done,
}

/// The position in `*( BWS ";" BWS name [ BWS "=" BWS value ] )` (§7.1.1).
#[derive(Clone, Copy, Debug)]
enum Extension {
    SpaceBeforeSemicolon,
    Semicolon,
    Name,
    SpaceAfterName,
    Equals,
    Token,
    Quoted,
    QuotedPair,
    QuotedEnd,
}

impl Chunked {
    /// Continues with `bytes`, which follow those of the last call. The result does not depend on how the bytes
    /// are split.
    ///
    /// # Errors
    /// If the framing is invalid; the connection cannot be read any further.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Chunk, DetailedRejection> {
        let (mut consumed, mut data) = (0, 0);
        while let Some(rest) = bytes.get(consumed..).filter(|rest| !rest.is_empty()) {
            consumed += match self.part {
                Part::Done => break,
                Part::Data => {
                    let length = usize::try_from(self.size).unwrap_or(usize::MAX).min(rest.len());
                    // Lengths in memory fit into 64 bits.
                    self.size -= length as u64;
                    data += length as u64;
                    if self.size == 0 {
                        self.part = Part::DataCarriageReturn;
                    }
                    length
                }
                Part::Trailers(mut lines) => {
                    let taken = self.trailers(&mut lines, rest)?;
                    if !matches!(self.part, Part::Done) {
                        self.part = Part::Trailers(lines);
                    }
                    taken
                }
                _ => {
                    self.framing(rest.first().copied().unwrap_or_default())?;
                    1
                }
            };
        }
        Ok(Chunk { consumed, data, done: matches!(self.part, Part::Done) })
    }

    /// One byte that is neither data nor trailers.
    fn framing(&mut self, byte: u8) -> Result<(), DetailedRejection> {
        self.part = match (self.part, byte) {
            (Part::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digit(byte)?;
                Part::Size
            }
            (Part::Size, _) if self.length == 0 => {
                return Err(DetailedRejection::bad_request("a chunk without a size"));
            }
            (Part::Size, b'\r') => Part::SizeEnd,
            (Part::Size, b' ' | b'\t' | b';') => {
                self.length = 0;
                self.extension(Extension::SpaceBeforeSemicolon, byte)?
            }
            (Part::Size, _) => return Err(DetailedRejection::bad_request("a chunk size that is not hexadecimal")),
            (Part::Extension(extension), _) => self.extension(extension, byte)?,
            (Part::SizeEnd, b'\n') => {
                self.length = 0;
                if self.size == 0 { Part::Trailers(FieldLines::default()) } else { Part::Data }
            }
            (Part::DataCarriageReturn, b'\r') => Part::DataLineFeed,
            (Part::DataLineFeed, b'\n') => Part::Size,
            (Part::SizeEnd, _) => return Err(DetailedRejection::bad_request("a chunk size without CRLF")),
            _ => return Err(DetailedRejection::bad_request("chunk data that does not match the chunk size")),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<(), DetailedRejection> {
        self.length += 1;
        if self.length > DIGITS_MAX {
            return Err(DetailedRejection::bad_request("a chunk size of too many digits"));
        }
        // Sixteen digits of four bits cannot overflow.
        self.size = self.size << 4 | u64::from(char::from(byte).to_digit(16).unwrap_or_default());
        Ok(())
    }

    fn extension(&mut self, at: Extension, byte: u8) -> Result<Part, DetailedRejection> {
        use Extension::{
            Equals, Name, Quoted, QuotedEnd, QuotedPair, Semicolon, SpaceAfterName, SpaceBeforeSemicolon, Token,
        };
        let next = match (at, byte) {
            (Name | Token | QuotedEnd, b'\r') => return Ok(Part::SizeEnd),
            (SpaceBeforeSemicolon | Token | QuotedEnd, b' ' | b'\t') => SpaceBeforeSemicolon,
            (SpaceBeforeSemicolon | Name | SpaceAfterName | Token | QuotedEnd, b';') => Semicolon,
            (Semicolon | Equals, b' ' | b'\t') => at,
            (Name | SpaceAfterName, b' ' | b'\t') => SpaceAfterName,
            (Name | SpaceAfterName, b'=') => Equals,
            (Equals, b'"') | (QuotedPair, _) if VALUE.has(byte) => Quoted,
            (Quoted, b'"') => QuotedEnd,
            (Quoted, b'\\') => QuotedPair,
            (Quoted, _) if VALUE.has(byte) => Quoted,
            (Semicolon | Name, _) if TOKEN.has(byte) => Name,
            (Equals | Token, _) if TOKEN.has(byte) => Token,
            _ => return Err(DetailedRejection::bad_request("a malformed chunk extension")),
        };
        self.length += 1;
        if self.length > EXTENSIONS_MAX {
            return Err(DetailedRejection::bad_request("chunk extensions that are too long"));
        }
        Ok(Part::Extension(next))
    }

    fn trailers(&mut self, lines: &mut FieldLines, rest: &[u8]) -> Result<usize, DetailedRejection> {
        let too_long = DetailedRejection::bad_request("trailers that are too long");
        let seen = rest.get(..TRAILERS_MAX - self.length).unwrap_or(rest);
        if seen.is_empty() {
            return Err(too_long);
        }
        let (taken, event) = lines.advance(seen)?;
        self.length += taken;
        if event == Some(Event::End) {
            self.part = Part::Done;
        }
        Ok(taken)
    }
}
