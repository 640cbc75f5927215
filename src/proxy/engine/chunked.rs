//! Reads and writes the chunked coding (RFC 9112 §7.1).
//!
//! The listener has already checked a client's chunks against a stricter grammar ([`crate::http::h1::Chunked`]).
//! Backends get the leniency of `httparse`, as in Pingora: old servers pad a size with spaces.

use std::io::Write;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::Status;

/// The longest chunk size with its extensions, in bytes.
const SIZE_LINE_MAX: usize = 4 << 10;
/// The longest trailer section, in bytes.
const TRAILERS_MAX: usize = 8 << 10;
/// The most trailer fields.
const TRAILER_COUNT_MAX: usize = 64;

/// The position in a chunked body.
#[derive(Debug, Default)]
enum Part {
    #[default]
    Size,
    /// In the data of a chunk, with the number of missing bytes.
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// Decodes a chunked body as its bytes arrive.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    part: Part,
}

/// The next piece of a chunked body.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// A part of the data.
    Data(Bytes),
    /// The end, with the trailers if there are any.
    End(Option<HeaderMap>),
    /// More bytes are needed.
    Incomplete,
}

impl Decoder {
    /// Takes the next piece from `bytes`.
    ///
    /// # Errors
    /// If the coding is invalid.
    pub(super) fn next(&mut self, bytes: &mut BytesMut) -> Result<Piece, &'static str> {
        loop {
            match self.part {
                Part::Size => match httparse::parse_chunk_size(bytes) {
                    Ok(Status::Complete((length, size))) => {
                        bytes.advance(length);
                        self.part = if size == 0 { Part::Trailers } else { Part::Data(size) };
                    }
                    Ok(Status::Partial) if bytes.len() <= SIZE_LINE_MAX => return Ok(Piece::Incomplete),
                    Ok(Status::Partial) | Err(_) => return Err("invalid chunk size"),
                },
                Part::Data(_) if bytes.is_empty() => return Ok(Piece::Incomplete),
                Part::Data(missing) => {
                    let length = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len());
                    // A length in memory fits into 64 bits.
                    let rest = missing - length as u64;
                    self.part = if rest == 0 { Part::DataEnd } else { Part::Data(rest) };
                    return Ok(Piece::Data(bytes.split_to(length).freeze()));
                }
                Part::DataEnd => match bytes.get(..2) {
                    Some(b"\r\n") => {
                        bytes.advance(2);
                        self.part = Part::Size;
                    }
                    None if matches!(&bytes[..], b"" | b"\r") => return Ok(Piece::Incomplete),
                    _ => return Err("invalid end of a chunk"),
                },
                Part::Trailers => {
                    let Some(trailers) = trailers(bytes)? else { return Ok(Piece::Incomplete) };
                    self.part = Part::Done;
                    return Ok(Piece::End((!trailers.is_empty()).then_some(trailers)));
                }
                Part::Done => return Ok(Piece::End(None)),
            }
        }
    }
}

/// The trailers and the empty line after them; `None` if they are incomplete.
fn trailers(bytes: &mut BytesMut) -> Result<Option<HeaderMap>, &'static str> {
    if bytes.starts_with(b"\r\n") {
        bytes.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_COUNT_MAX];
    let (length, trailers) = match httparse::parse_headers(bytes, &mut fields) {
        Ok(Status::Complete((length, fields))) => (length, to_map(fields)?),
        Ok(Status::Partial) if bytes.len() <= TRAILERS_MAX => return Ok(None),
        Ok(Status::Partial) | Err(_) => return Err("invalid trailers"),
    };
    bytes.advance(length);
    Ok(Some(trailers))
}

fn to_map(fields: &[httparse::Header<'_>]) -> Result<HeaderMap, &'static str> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "invalid trailer name")?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| "invalid trailer value")?;
        map.append(name, value);
    }
    Ok(map)
}

/// The line before the data of a chunk.
pub(super) struct SizeLine {
    /// Sixteen hexadecimal digits and CRLF.
    text: [u8; 18],
    length: usize,
}

impl SizeLine {
    /// The line for a chunk of `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        let mut text = [0; 18];
        let mut rest = &mut text[..];
        // 64 bits have at most sixteen digits, so the line fits.
        let written = write!(rest, "{size:X}\r\n").is_ok();
        let length = 18 - rest.len();
        Self { text, length: if written { length } else { 0 } }
    }

    /// The bytes of the line.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.length).unwrap_or_default()
    }
}

/// Writes the end of a chunked body.
pub(super) fn write_end(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `body` with `step` bytes at a time.
    fn decode(body: &[u8], step: usize) -> Result<(Vec<u8>, Option<HeaderMap>, usize), &'static str> {
        let (mut decoder, mut bytes, mut data) = (Decoder::default(), BytesMut::new(), Vec::new());
        let mut fed = 0;
        loop {
            match decoder.next(&mut bytes)? {
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::End(trailers) => return Ok((data, trailers, bytes.len() + body.len() - fed)),
                Piece::Incomplete if fed == body.len() => return Err("incomplete"),
                Piece::Incomplete => {
                    let next = (fed + step).min(body.len());
                    bytes.extend_from_slice(&body[fed..next]);
                    fed = next;
                }
            }
        }
    }

    #[test]
    fn chunked_body_is_decoded_in_any_split() {
        for (body, data, trailers, rest) in [
            ("0\r\n\r\n", "", 0, 0),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", 0, 0),
            ("5;a=b\r\nhello\r\n1  \r\n!\r\n000\r\nX: y\r\nX: z\r\n\r\nnext", "hello!", 2, 4),
        ] {
            for step in 1..=body.len() {
                let (decoded, found, left) = decode(body.as_bytes(), step).unwrap();
                assert_eq!(decoded, data.as_bytes(), "{body:?} in steps of {step}");
                assert_eq!(found.map_or(0, |trailers| trailers.len()), trailers, "{body:?} in steps of {step}");
                assert_eq!(left, rest, "{body:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn invalid_chunked_body_is_an_error_in_any_split() {
        let long = format!("1;{}", "a".repeat(SIZE_LINE_MAX));
        let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(TRAILER_COUNT_MAX + 1));
        for body in ["x\r\n", "5\nhello", "5\r\nhelloX\r\n", "5\r\nhello\rX", "0\r\nno colon\r\n\r\n", &long, &many] {
            for step in [1, 7, body.len()] {
                let found = decode(body.as_bytes(), step);
                assert!(found.is_err_and(|e| e != "incomplete"), "{body:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn encoded_body_is_decoded_to_the_same_data() {
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_static("y"))]);
        for size in [1, 15, 16, 255, 4096, 70_000] {
            let mut body = BytesMut::from(SizeLine::new(size).as_bytes());
            body.extend_from_slice(&vec![b'.'; size]);
            body.extend_from_slice(b"\r\n");
            write_end(&mut body, Some(&trailers));
            assert_eq!(decode(&body, body.len()).unwrap(), (vec![b'.'; size], Some(trailers.clone()), 0));
        }
    }
}
