//! How the end of a message is determined, and whether its connection stays open (RFC 9112 §6 and §9.3).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::{Error, ErrorType};
use pingora_http::ResponseHeader;

/// How the end of a body is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no body.
    None,
    /// This many more bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// The end of the connection.
    Close,
}

impl Framing {
    /// The framing of the body after the head of a final response. Passes all fields to `each`: one pass costs less than
    /// a lookup for each name.
    ///
    /// # Errors
    /// If Content-Length is invalid, even if there is no body.
    pub(super) fn of_response(
        head: &ResponseHeader,
        to_head_request: bool,
        mut each: impl FnMut(&HeaderName, &HeaderValue),
    ) -> pingora::Result<Self> {
        let (mut length, mut coding) = (None, None);
        for (name, value) in &head.headers {
            each(name, value);
            if *name == header::CONTENT_LENGTH {
                length = merge_length(length, value)?;
            } else if *name == header::TRANSFER_ENCODING {
                coding = Some(value);
            }
        }
        if to_head_request || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Self::None);
        }
        if let Some(last) = coding {
            let coding = last.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
            let chunked = coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
            return Ok(if chunked { Self::Chunked } else { Self::Close });
        }
        Ok(match length {
            Some(0) => Self::None,
            Some(length) => Self::Length(length),
            None => Self::Close,
        })
    }

    /// Cuts `data` to what the body may still have. A chunk that was started has its size already.
    pub(super) fn limit(self, data: &mut Bytes, in_chunk: bool) {
        match self {
            Self::None if !in_chunk => data.clear(),
            Self::Length(missing) => data.truncate(usize::try_from(missing).unwrap_or(usize::MAX)),
            Self::None | Self::Chunked | Self::Close => {}
        }
    }

    /// Counts bytes of the body.
    pub(super) fn consume(&mut self, bytes: usize) {
        if let Self::Length(missing) = self {
            // A length in memory fits into 64 bits.
            *missing = missing.saturating_sub(bytes as u64);
        }
    }
}

/// The Content-Length so far and that of another field. Repeated equal values count as one (RFC 9110 §8.6).
///
/// # Errors
/// If it is not a number, or if values differ.
fn merge_length(mut length: Option<u64>, value: &HeaderValue) -> pingora::Result<Option<u64>> {
    for text in value.as_bytes().split(|byte| *byte == b',') {
        let text = text.trim_ascii();
        match (parse_length(text), length) {
            (None, _) => return Error::e_explain(ErrorType::InvalidHTTPHeader, "invalid Content-Length"),
            (Some(number), Some(before)) if number != before => {
                return Error::e_explain(ErrorType::InvalidHTTPHeader, "conflicting values of Content-Length");
            }
            (number, _) => length = number,
        }
    }
    Ok(length)
}

/// A number of digits only; `None` if there is another character, no digit, or too many.
fn parse_length(text: &[u8]) -> Option<u64> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let add = |number: u64, byte: &u8| number.checked_mul(10)?.checked_add(digit(*byte)?);
    if text.is_empty() { None } else { text.iter().try_fold(0, add) }
}

/// The options of `Connection` that decide about the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    close: bool,
    keepalive: bool,
}

/// The options in `Connection`.
pub(super) fn connection_options(headers: &HeaderMap) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    for value in headers.get_all(header::CONNECTION) {
        options.add(value);
    }
    options
}

impl ConnectionOptions {
    /// Adds the options of one field.
    pub(super) fn add(&mut self, value: &HeaderValue) {
        for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keepalive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Whether a connection with a message of `version` stays open.
    pub(super) fn keepalive(self, version: Version) -> bool {
        !self.close && (self.keepalive || version == Version::HTTP_11)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build_no_case(200, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn framing_of_a_response_follows_its_headers() {
        for (fields, framing) in [
            (&[][..], Framing::Close),
            (&[("content-length", "0")], Framing::None),
            (&[("content-length", "7")], Framing::Length(7)),
            (&[("content-length", "7, 7"), ("content-length", "7")], Framing::Length(7)),
            (&[("transfer-encoding", "chunked")], Framing::Chunked),
            (&[("transfer-encoding", "gzip, Chunked")], Framing::Chunked),
            (&[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")], Framing::Chunked),
            (&[("transfer-encoding", "chunked, gzip")], Framing::Close),
        ] {
            let of = |to_head| Framing::of_response(&response(fields), to_head, |_, _| {}).unwrap();
            assert_eq!((of(false), of(true)), (framing, Framing::None), "{fields:?}, to GET and to HEAD");
        }
        for length in ["", "-1", "+1", "0x1", "1 2", "1,2", "18446744073709551616", "99999999999999999999"] {
            let head = response(&[("content-length", length)]);
            for to_head in [false, true] {
                assert!(Framing::of_response(&head, to_head, |_, _| {}).is_err(), "{length:?}, to HEAD: {to_head}");
            }
        }
        let longest = response(&[("content-length", "18446744073709551615")]);
        assert_eq!(Framing::of_response(&longest, false, |_, _| {}).unwrap(), Framing::Length(u64::MAX));
    }

    #[test]
    fn connection_stays_open_according_to_version_and_options() {
        for (options, http11, http10) in [
            (None, true, false),
            (Some("close"), false, false),
            (Some("keep-alive"), true, true),
            (Some("Keep-Alive, X"), true, true),
            (Some("keep-alive, close"), false, false),
        ] {
            let headers = options.map(|value| (header::CONNECTION, HeaderValue::from_static(value)));
            let options = connection_options(&headers.into_iter().collect());
            assert_eq!(options.keepalive(Version::HTTP_11), http11, "{options:?}");
            assert_eq!(options.keepalive(Version::HTTP_10), http10, "{options:?}");
        }
    }

    #[test]
    fn body_is_cut_to_its_framing() {
        let cut = |framing: Framing, in_chunk| {
            let mut data = Bytes::from_static(b"12345");
            framing.limit(&mut data, in_chunk);
            data.len()
        };
        assert_eq!((cut(Framing::None, false), cut(Framing::Length(3), false)), (0, 3));
        assert_eq!((cut(Framing::Chunked, false), cut(Framing::Close, false), cut(Framing::None, true)), (5, 5, 5));
    }
}
