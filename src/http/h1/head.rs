//! The request head: request line, header and empty line.

use std::ops::Range;

use super::body::Body;
use super::field_lines::{Event, FieldLines};
use super::fields::Fields;
use super::request_line::RequestLine;
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::http::request_limits::RequestLimits;

/// A legal head. Positions count from the first given byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The start of the request line: 2 after an empty line, which is skipped, otherwise 0.
    pub start: usize,
    /// The end of the head after its empty line: the first byte of the body.
    pub length: usize,
    /// The position of the method.
    pub method: Range<usize>,
    /// The position of the target.
    pub target: Range<usize>,
    /// The target has bytes that the `http` crate refuses: see [`super::encode_target`].
    pub encode_target: bool,
    /// The position of the Host value; HTTP/1.0 may have none.
    pub host: Option<Range<usize>>,
    /// The position of the authority, if the target is in absolute form. It agrees with Host.
    pub authority: Option<Range<usize>>,
    /// The number of fields.
    pub fields: usize,
    /// The body that follows.
    pub body: Body,
    /// HTTP/1.1, not 1.0.
    pub version_1_1: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client requests a protocol upgrade.
    pub upgrade: bool,
}

/// Parses a head as its bytes arrive, each byte once.
#[derive(Clone, Debug, Default)]
pub struct HeadReader {
    part: Part,
    /// The number of examined bytes.
    at: usize,
    start: usize,
    line: RequestLine,
    field_lines: FieldLines,
    fields: Fields,
    field_count: usize,
    /// The start of the current field.
    field: usize,
    /// The start of its value.
    value: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    #[default]
    Start,
    EmptyLine,
    RequestLine,
    Header,
}

impl HeadReader {
    /// Examines the bytes since the last call. `bytes` starts with the first byte of this head, and may contain
    /// more after it. `None`: more bytes are needed.
    ///
    /// The result does not depend on how the bytes are split. After a head the reader is reset for the bytes
    /// after the body.
    ///
    /// # Errors
    /// If the head is illegal or too large, as early as that is known. The connection cannot be read any
    /// further.
    pub fn inspect(&mut self, bytes: &[u8], limits: &RequestLimits) -> Result<Option<Head>, DetailedRejection> {
        let size = usize::try_from(limits.header_size).unwrap_or(usize::MAX);
        loop {
            let seen = bytes.get(..self.start.saturating_add(size)).unwrap_or(bytes);
            if self.at >= seen.len() {
                return if seen.len() < bytes.len() { Err(too_large("the header is too large")) } else { Ok(None) };
            }
            match self.part {
                Part::Start | Part::EmptyLine => self.begin(seen)?,
                Part::RequestLine => {
                    let (at, complete) = self.line.advance(seen, self.at, limits)?;
                    self.at = at;
                    if complete {
                        self.part = Part::Header;
                        self.field = at;
                    }
                }
                Part::Header => {
                    if self.header(seen, limits)? {
                        let head = self.finish(seen)?;
                        *self = Self::default();
                        return Ok(Some(head));
                    }
                }
            }
        }
    }

    /// RFC 9112 §2.2: one empty line before the request is skipped, not several.
    fn begin(&mut self, seen: &[u8]) -> Result<(), DetailedRejection> {
        match (self.part, seen.get(self.at)) {
            (Part::Start, Some(b'\r')) if self.start == 0 => {
                self.part = Part::EmptyLine;
                self.at += 1;
            }
            (Part::Start, Some(b'\r')) => return Err(DetailedRejection::bad_request("more than one empty line")),
            (Part::Start, _) => {
                self.part = Part::RequestLine;
                self.line = RequestLine::at(self.start);
            }
            (_, Some(b'\n')) => {
                self.part = Part::Start;
                self.at += 1;
                self.start = self.at;
            }
            _ => return Err(DetailedRejection::bad_request("a bare CR in the header")),
        }
        Ok(())
    }

    /// Processes one step of the header. Returns whether the empty line has arrived.
    fn header(&mut self, seen: &[u8], limits: &RequestLimits) -> Result<bool, DetailedRejection> {
        let (taken, event) = self.field_lines.advance(seen.get(self.at..).unwrap_or_default())?;
        self.at += taken;
        match event {
            Some(Event::Name) => {
                self.field_count += 1;
                self.value = self.at;
                if self.field_count > limits.header_count {
                    return Err(too_large("too many fields"));
                }
            }
            Some(Event::Line) => {
                // Without the colon after the name and the CRLF after the value.
                let name = seen.get(self.field..self.value - 1).unwrap_or_default();
                self.fields.take(name, self.value..self.at - 2, seen)?;
                self.field = self.at;
            }
            Some(Event::End) => return Ok(true),
            None => {}
        }
        Ok(false)
    }

    fn finish(&self, seen: &[u8]) -> Result<Head, DetailedRejection> {
        let (line, fields) = (&self.line, &self.fields);
        fields.check_host(line, seen)?;
        Ok(Head {
            start: self.start,
            length: self.at,
            method: line.method.clone(),
            target: line.target.clone(),
            encode_target: line.encode,
            host: fields.host.clone(),
            authority: line.authority.clone(),
            fields: self.field_count,
            body: fields.body(line)?,
            version_1_1: line.version_1_1,
            expects_continue: fields.expects_continue(line),
            upgrade: fields.upgrade(line),
        })
    }
}

fn too_large(detail: &'static str) -> DetailedRejection {
    DetailedRejection { rejection: Rejection::HeaderTooLarge, detail }
}
