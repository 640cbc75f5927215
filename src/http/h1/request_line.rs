//! The request line (RFC 9112 §3): method, target and version with one space between them.

use std::ops::Range;

use super::authority;
use super::grammar::{TARGET, TOKEN};
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::http::request_limits::RequestLimits;
use crate::http::target;

/// `HTTP/1.` and a digit.
const VERSION: &[u8] = b"HTTP/1.";

/// The request line as far as it was parsed.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestLine {
    part: Part,
    /// The start of the current part.
    mark: usize,
    /// The position of the method.
    pub(super) method: Range<usize>,
    /// The position of the target.
    pub(super) target: Range<usize>,
    /// The position of the authority of a target in absolute form.
    pub(super) authority: Option<Range<usize>>,
    /// The target has bytes that must be percent-encoded.
    pub(super) encode: bool,
    /// HTTP/1.1, not 1.0.
    pub(super) version_1_1: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    #[default]
    Method,
    Target,
    Version,
    CarriageReturn,
    LineFeed,
}

impl RequestLine {
    /// A line that starts at `start`.
    pub(super) fn at(start: usize) -> Self {
        Self { mark: start, ..Self::default() }
    }

    /// Continues at `at`, where there is a byte. Returns the next position, and whether the line is complete.
    pub(super) fn advance(
        &mut self,
        bytes: &[u8],
        at: usize,
        limits: &RequestLimits,
    ) -> Result<(usize, bool), DetailedRejection> {
        let rest = bytes.get(at..).unwrap_or_default();
        match self.part {
            Part::Method => self.method(bytes, at + TOKEN.run(rest)),
            Part::Target => self.target(bytes, at + TARGET.run(rest), limits),
            Part::Version => self.version(bytes),
            Part::CarriageReturn => match rest.first() {
                Some(b'\r') => {
                    self.part = Part::LineFeed;
                    Ok((at + 1, false))
                }
                Some(b' ' | b'\t') => Err(DetailedRejection::bad_request("space after the version")),
                Some(b'\n') => Err(DetailedRejection::bad_request("a bare LF in the header")),
                _ => Err(DetailedRejection::bad_request("a version other than HTTP/1.0 and HTTP/1.1")),
            },
            Part::LineFeed if rest.first() == Some(&b'\n') => Ok((at + 1, true)),
            Part::LineFeed => Err(DetailedRejection::bad_request("a bare CR in the header")),
        }
    }

    fn method(&mut self, bytes: &[u8], end: usize) -> Result<(usize, bool), DetailedRejection> {
        let method = bytes.get(self.mark..end).unwrap_or_default();
        match bytes.get(end) {
            None => return Ok((end, false)),
            Some(b' ') if !method.is_empty() => {}
            Some(b'\n') => return Err(DetailedRejection::bad_request("a bare LF in the header")),
            Some(b'\r') => return Err(DetailedRejection::bad_request("a request line without a target")),
            Some(_) => return Err(DetailedRejection::bad_request("a method that is not a token")),
        }
        if matches!(method, b"CONNECT" | b"TRACE") {
            return Err(DetailedRejection { rejection: Rejection::MethodNotAllowed, detail: "CONNECT or TRACE" });
        }
        self.method = self.mark..end;
        self.part = Part::Target;
        self.mark = end + 1;
        Ok((self.mark, false))
    }

    fn target(&mut self, bytes: &[u8], end: usize, limits: &RequestLimits) -> Result<(usize, bool), DetailedRejection> {
        // Lengths in memory fit into 64 bits.
        if (end - self.mark) as u64 > limits.target_size {
            return Err(DetailedRejection { rejection: Rejection::TargetTooLong, detail: "the target is too long" });
        }
        match bytes.get(end) {
            None => return Ok((end, false)),
            Some(b' ') if end == self.mark => {
                return Err(DetailedRejection::bad_request("more than one space between parts of the request line"));
            }
            Some(b' ') => {}
            Some(b'\r') => return Err(DetailedRejection::bad_request("a request line without a version")),
            Some(b'\n') => return Err(DetailedRejection::bad_request("a bare LF in the header")),
            Some(byte) => {
                // The check names a byte that is not allowed.
                target::check(std::slice::from_ref(byte))?;
                self.encode = true;
                return Ok((end + 1, false));
            }
        }
        self.target = self.mark..end;
        self.part = Part::Version;
        self.mark = end + 1;
        self.form(bytes)?;
        Ok((self.mark, false))
    }

    /// The form of the target (RFC 9112 §3.2): origin or absolute, or `*` of OPTIONS.
    fn form(&mut self, bytes: &[u8]) -> Result<(), DetailedRejection> {
        let target = bytes.get(self.target.clone()).unwrap_or_default();
        target::check_escapes(target)?;
        match target {
            [b'/', ..] => return Ok(()),
            b"*" if bytes.get(self.method.clone()) == Some(b"OPTIONS") => return Ok(()),
            b"*" => return Err(DetailedRejection::bad_request("the target * is only valid with OPTIONS")),
            _ => {}
        }
        let has = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        let scheme = if has(b"http://") {
            b"http://".len()
        } else if has(b"https://") {
            b"https://".len()
        } else {
            return Err(DetailedRejection::bad_request("a target that is neither a path nor an http URL"));
        };
        let rest = target.get(scheme..).unwrap_or_default();
        let length = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let start = self.target.start + scheme;
        authority::check(rest.get(..length).unwrap_or_default())?;
        self.authority = Some(start..start + length);
        Ok(())
    }

    fn version(&mut self, bytes: &[u8]) -> Result<(usize, bool), DetailedRejection> {
        let received = bytes.get(self.mark..).unwrap_or_default();
        for (received, wanted) in received.iter().zip(VERSION) {
            if received != wanted {
                return Err(DetailedRejection::bad_request(match received {
                    b' ' => "more than one space between parts of the request line",
                    b'\n' => "a bare LF in the header",
                    _ => "a version other than HTTP/1.0 and HTTP/1.1",
                }));
            }
        }
        let Some(minor) = received.get(VERSION.len()) else {
            return Ok((bytes.len(), false));
        };
        self.version_1_1 = match minor {
            b'1' => true,
            b'0' => false,
            _ => return Err(DetailedRejection::bad_request("a version other than HTTP/1.0 and HTTP/1.1")),
        };
        self.part = Part::CarriageReturn;
        Ok((self.mark + VERSION.len() + 1, false))
    }
}
