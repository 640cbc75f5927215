//! The fields that determine how a request is parsed: Host, framing, expectations, upgrades.

use std::ops::Range;

use super::authority;
use super::body::Body;
use super::grammar::{TOKEN, trim};
use super::request_line::RequestLine;
use crate::http::rejection::{DetailedRejection, Rejection};

/// The most options of `Connection`; normal requests have at most three.
const OPTIONS_MAX: u8 = 9;
/// Fields that `Connection` must not name.
const END_TO_END: [&str; 7] = [
    "content-length",
    "forwarded",
    "host",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// The state of the fields so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    /// The position of the Host value.
    pub(super) host: Option<Range<usize>>,
    length: Option<u64>,
    chunked: bool,
    expects_continue: bool,
    /// The options of `Connection`.
    options: u8,
    /// `Connection` has `upgrade`.
    connection_upgrade: bool,
    /// There is an `Upgrade`.
    upgrade: bool,
}

impl Fields {
    /// Processes a field; `value` is its position in `bytes`.
    pub(super) fn take(&mut self, name: &[u8], value: Range<usize>, bytes: &[u8]) -> Result<(), DetailedRejection> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let text = bytes.get(value.clone()).unwrap_or_default();
        match name.len() {
            4 if is("host") => self.host(text, value.start),
            6 if is("expect") => self.expect(trim(text)),
            7 if is("upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            10 if is("connection") => self.connection(text),
            14 if is("content-length") => self.length(trim(text)),
            17 if is("transfer-encoding") => self.transfer_encoding(trim(text)),
            _ => Ok(()),
        }
    }

    fn host(&mut self, text: &[u8], start: usize) -> Result<(), DetailedRejection> {
        if self.host.is_some() {
            return Err(DetailedRejection::bad_request("more than one Host"));
        }
        let value = trim(text);
        authority::check(value)?;
        // The value is not empty, so the bytes before it are spaces.
        let space = text.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or_default();
        self.host = Some(start + space..start + space + value.len());
        Ok(())
    }

    /// RFC 9110 §7.6.1: a named field is removed on the way. Fields that define the end of the body or the
    /// client address must not be removed.
    fn connection(&mut self, text: &[u8]) -> Result<(), DetailedRejection> {
        for option in text.split(|byte| *byte == b',').map(trim).filter(|option| !option.is_empty()) {
            self.options += 1;
            if self.options > OPTIONS_MAX {
                return Err(DetailedRejection::bad_request("too many options in Connection"));
            }
            if TOKEN.run(option) < option.len() {
                return Err(DetailedRejection::bad_request("an option in Connection that is not a token"));
            }
            if END_TO_END.iter().any(|name| option.eq_ignore_ascii_case(name.as_bytes())) {
                return Err(DetailedRejection::bad_request("Connection names a header that must not be removed"));
            }
            self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }

    /// RFC 9110 §10.1.1.
    fn expect(&mut self, value: &[u8]) -> Result<(), DetailedRejection> {
        if self.expects_continue || !value.eq_ignore_ascii_case(b"100-continue") {
            let detail = "the expectation is not a single 100-continue";
            return Err(DetailedRejection { rejection: Rejection::ExpectationFailed, detail });
        }
        self.expects_continue = true;
        Ok(())
    }

    fn length(&mut self, value: &[u8]) -> Result<(), DetailedRejection> {
        if self.length.is_some() {
            return Err(DetailedRejection::bad_request("more than one Content-Length"));
        }
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(DetailedRejection::bad_request("a Content-Length that is not a number"));
        }
        let length = str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
        self.length = Some(length.ok_or(DetailedRejection::bad_request("a Content-Length that exceeds 64 bits"))?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), DetailedRejection> {
        if self.chunked {
            return Err(DetailedRejection::bad_request("more than one Transfer-Encoding"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(DetailedRejection::bad_request("a Transfer-Encoding other than chunked"));
        }
        self.chunked = true;
        Ok(())
    }

    /// The body that follows (RFC 9112 §6.3), once all fields are known.
    pub(super) fn body(&self, line: &RequestLine) -> Result<Body, DetailedRejection> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(DetailedRejection::bad_request("both Transfer-Encoding and Content-Length")),
            (true, None) if !line.version_1_1 => Err(DetailedRejection::bad_request("Transfer-Encoding in HTTP/1.0")),
            (true, None) => Ok(Body::Chunked),
            (false, Some(length)) => Ok(Body::Length(length)),
            (false, None) => Ok(Body::None),
        }
    }

    /// RFC 9112 §3.2: HTTP/1.1 requires Host, and an absolute form must agree with it.
    pub(super) fn check_host(&self, line: &RequestLine, bytes: &[u8]) -> Result<(), DetailedRejection> {
        let Some(host) = &self.host else {
            return match (line.version_1_1, &line.authority) {
                (true, _) => Err(DetailedRejection::bad_request("HTTP/1.1 without Host")),
                (false, Some(_)) => Err(DetailedRejection::bad_request("an absolute-form target without Host")),
                (false, None) => Ok(()),
            };
        };
        // Compared byte by byte: clients write both from one URL, and Pingora requires it.
        if line.authority.as_ref().is_some_and(|authority| bytes.get(authority.clone()) != bytes.get(host.clone())) {
            return Err(DetailedRejection::bad_request("the authority of the target differs from Host"));
        }
        Ok(())
    }

    /// Whether the client waits for `100 Continue`. In HTTP/1.0 it is ignored.
    pub(super) fn expects_continue(&self, line: &RequestLine) -> bool {
        line.version_1_1 && self.expects_continue
    }

    /// Whether the client requests a protocol upgrade. In HTTP/1.0 it is ignored.
    pub(super) fn upgrade(&self, line: &RequestLine) -> bool {
        line.version_1_1 && self.upgrade && self.connection_upgrade
    }
}
