//! Encodes a body with a content coding, part by part.

use std::io::{self, Write};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use pingora::{Error, ErrorType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::accept_encoding::Coding;
use super::body::BodyFilter;

/// How much work goes into a smaller body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Little work.
    Fast,
    /// Nearly as small as with `small`, for a fraction of the work.
    #[default]
    Balanced,
    /// Much work.
    Small,
}

/// The binary logarithm of the windows of Brotli and Zstandard in bytes, which bounds the memory of a response. Clients
/// support at least 8 MiB (RFC 9659).
const WINDOW: u32 = 18;
/// The buffer of Brotli in bytes.
const BUFFER: usize = 4096;

enum Writer {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// The encoder of one body.
pub(super) struct Encoder {
    /// `None` after the end.
    writer: Option<Writer>,
    /// Whether the client can decode each part when it arrives.
    flushes: bool,
}

impl Encoder {
    /// An encoder that makes the client see each part at once if it `flushes`.
    pub(super) fn new(coding: Coding, level: Level, flushes: bool) -> io::Result<Self> {
        let out = Vec::new();
        let of = |fast, balanced, small| match level {
            Level::Fast => fast,
            Level::Balanced => balanced,
            Level::Small => small,
        };
        let writer = match coding {
            Coding::Gzip => Writer::Gzip(GzEncoder::new(out, Compression::new(of(1, 6, 9)))),
            Coding::Br => Writer::Brotli(Box::new(CompressorWriter::new(out, BUFFER, of(1, 4, 7), WINDOW))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, of(1, 3, 9).try_into().unwrap_or(3))?;
                encoder.window_log(WINDOW)?;
                Writer::Zstd(encoder)
            }
        };
        Ok(Self { writer: Some(writer), flushes })
    }

    fn encode(&mut self, data: &[u8], end: bool) -> io::Result<Vec<u8>> {
        let Some(writer) = &mut self.writer else { return Ok(Vec::new()) };
        let out = match writer {
            Writer::Gzip(writer) => write(writer, data, self.flushes && !end, GzEncoder::get_mut)?,
            Writer::Brotli(writer) => write(&mut **writer, data, self.flushes && !end, CompressorWriter::get_mut)?,
            Writer::Zstd(writer) => write(writer, data, self.flushes && !end, zstd::stream::write::Encoder::get_mut)?,
        };
        if !end {
            return Ok(out);
        }
        let rest = match self.writer.take() {
            Some(Writer::Gzip(writer)) => writer.finish()?,
            Some(Writer::Brotli(writer)) => writer.into_inner(),
            Some(Writer::Zstd(writer)) => writer.finish()?,
            None => Vec::new(),
        };
        Ok(if out.is_empty() { rest } else { [out, rest].concat() })
    }
}

/// Writes data, and takes what is encoded so far.
fn write<W: Write>(
    writer: &mut W,
    data: &[u8],
    flush: bool,
    out: impl FnOnce(&mut W) -> &mut Vec<u8>,
) -> io::Result<Vec<u8>> {
    if !data.is_empty() {
        writer.write_all(data)?;
        if flush {
            writer.flush()?;
        }
    }
    Ok(std::mem::take(out(writer)))
}

impl BodyFilter for Encoder {
    fn transform(&mut self, data: Bytes, end: bool) -> pingora::Result<Bytes> {
        let encoded = self.encode(&data, end);
        let failed = |e| Error::because(ErrorType::InternalError, "compressing a response", e);
        encoded.map(Bytes::from).map_err(failed)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read as _;

    use super::*;

    pub(in crate::filter) fn decode(coding: Coding, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // An error at the end of an incomplete body leaves what was decoded.
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(data).read_to_end(&mut out).ok(),
            Coding::Br => brotli::Decompressor::new(data, BUFFER).read_to_end(&mut out).ok(),
            Coding::Zstd => zstd::stream::read::Decoder::new(data).unwrap().read_to_end(&mut out).ok(),
        };
        out
    }

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    #[test]
    fn body_in_parts_is_decoded_to_itself_at_every_level() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for coding in ALL {
            for level in [Level::Fast, Level::Balanced, Level::Small] {
                for (flushes, size) in [(false, 65_536), (true, 9_999)] {
                    let mut encoder = Encoder::new(coding, level, flushes).unwrap();
                    let mut out = Vec::new();
                    for part in text.chunks(size) {
                        out.extend(encoder.transform(Bytes::copy_from_slice(part), false).unwrap());
                    }
                    out.extend(encoder.transform(Bytes::new(), true).unwrap());
                    assert!(out.len() < text.len() / 2, "{coding:?} {level:?}: {}", out.len());
                    assert!(decode(coding, &out) == text, "{coding:?} {level:?} {flushes}");
                }
            }
        }
    }

    #[test]
    fn each_part_can_be_decoded_at_once_if_the_encoder_flushes() {
        for coding in ALL {
            let mut encoder = Encoder::new(coding, Level::Balanced, true).unwrap();
            let (mut out, mut sent) = (Vec::new(), Vec::new());
            for part in [&b"data: one\n\n"[..], b"data: two\n\n", b"", b"data: three\n\n"] {
                out.extend(encoder.transform(Bytes::from_static(part), false).unwrap());
                sent.extend_from_slice(part);
                assert_eq!(decode(coding, &out), sent, "{coding:?}");
            }
        }
    }

    #[test]
    fn empty_body_is_a_valid_encoding_and_nothing_follows_the_end() {
        for coding in ALL {
            let mut encoder = Encoder::new(coding, Level::Balanced, false).unwrap();
            let out = encoder.transform(Bytes::new(), true).unwrap();
            assert!(!out.is_empty() && decode(coding, &out).is_empty(), "{coding:?}");
            assert!(encoder.transform(Bytes::from_static(b"late"), true).unwrap().is_empty());
        }
    }
}
