//! The head of a request: request line, header and blank line.

use std::ops::Range;

use super::field_lines::{Event, FieldLines};
use super::fields::Fields;
use super::request_line::RequestLine;
use crate::http::rejection::{Refusal, Rejection};
use crate::http::request_limits::RequestLimits;

/// A legal head. Places are counted from the first byte that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where the request line begins: 2 behind an empty line, which is skipped, else 0.
    pub start: usize,
    /// Where the head ends, behind its blank line: the body's first byte.
    pub length: usize,
    /// Where the method stands.
    pub method: Range<usize>,
    /// Where the target stands.
    pub target: Range<usize>,
    /// Where the value of Host stands; HTTP/1.0 may have none.
    pub host: Option<Range<usize>>,
    /// Where the authority stands, if the target is in absolute form. It agrees with Host.
    pub authority: Option<Range<usize>>,
    /// The number of fields.
    pub fields: usize,
    /// The body that follows.
    pub body: Body,
    /// HTTP/1.1, not 1.0.
    pub version_1_1: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client asks for a switch of the protocol.
    pub upgrade: bool,
}

/// How the end of a request's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none, and nothing says so.
    None,
    /// So many bytes; possibly zero.
    Length(u64),
    /// [`super::Chunked`] finds it.
    Chunked,
}

/// Reads a head as its bytes arrive, each once.
#[derive(Clone, Debug, Default)]
pub struct HeadReader {
    part: Part,
    /// How many bytes were looked at.
    at: usize,
    start: usize,
    line: RequestLine,
    field_lines: FieldLines,
    fields: Fields,
    field_count: usize,
    /// Where the current field begins.
    field: usize,
    /// Where its value begins.
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
    /// Looks at what came since the last call. `bytes` is all of this head so far, from its first
    /// byte, and may have more behind it. `None`: more is needed.
    ///
    /// The answer depends on the bytes alone, not on how many came at a time. After a head the
    /// reader is as new, for the bytes behind the body.
    ///
    /// # Errors
    /// The head is not legal or too large, which is said as early as it is known. The connection
    /// cannot be read any further.
    pub fn inspect(&mut self, bytes: &[u8], limits: &RequestLimits) -> Result<Option<Head>, Refusal> {
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

    /// RFC 9112 §2.2: an empty line before the request is skipped; one, not any number.
    fn begin(&mut self, seen: &[u8]) -> Result<(), Refusal> {
        match (self.part, seen.get(self.at)) {
            (Part::Start, Some(b'\r')) if self.start == 0 => {
                self.part = Part::EmptyLine;
                self.at += 1;
            }
            (Part::Start, Some(b'\r')) => return Err(Refusal::bad_request("more than one empty line")),
            (Part::Start, _) => {
                self.part = Part::RequestLine;
                self.line = RequestLine::at(self.start);
            }
            (_, Some(b'\n')) => {
                self.part = Part::Start;
                self.at += 1;
                self.start = self.at;
            }
            _ => return Err(Refusal::bad_request("a bare CR in the header")),
        }
        Ok(())
    }

    /// Reads one step of the header. Returns whether the blank line came.
    fn header(&mut self, seen: &[u8], limits: &RequestLimits) -> Result<bool, Refusal> {
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
                // Without the colon behind the name and the CRLF behind the value.
                let name = seen.get(self.field..self.value - 1).unwrap_or_default();
                self.fields.take(name, self.value..self.at - 2, seen)?;
                self.field = self.at;
            }
            Some(Event::End) => return Ok(true),
            None => {}
        }
        Ok(false)
    }

    fn finish(&self, seen: &[u8]) -> Result<Head, Refusal> {
        let (line, fields) = (&self.line, &self.fields);
        fields.check_host(line, seen)?;
        Ok(Head {
            start: self.start,
            length: self.at,
            method: line.method.clone(),
            target: line.target.clone(),
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

fn too_large(detail: &'static str) -> Refusal {
    Refusal { rejection: Rejection::HeaderTooLarge, detail }
}
