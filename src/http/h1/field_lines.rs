//! The syntax of field lines up to the empty line (RFC 9112 §5), for headers and trailers.

use super::grammar::{TOKEN, VALUE};
use crate::http::rejection::DetailedRejection;

/// The position in a line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum FieldLines {
    /// At the start of a line.
    #[default]
    Start,
    /// In a name.
    Name,
    /// In a value.
    Value,
    /// After the CR of a line.
    LineEnd,
    /// After the CR of the empty line.
    LastLineEnd,
}

/// A completed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A name, with its colon.
    Name,
    /// A line, with its CRLF.
    Line,
    /// The empty line: the end of the section.
    End,
}

impl FieldLines {
    /// Continues, at most to the next event. Returns how many bytes were consumed; all of them without an
    /// event.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<(usize, Option<Event>), DetailedRejection> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let (length, event) = self.step(rest)?;
            taken += length;
            if event.is_some() {
                return Ok((taken, event));
            }
        }
        Ok((taken, None))
    }

    fn step(&mut self, rest: &[u8]) -> Result<(usize, Option<Event>), DetailedRejection> {
        let class = match self {
            Self::Name => TOKEN,
            Self::Value => VALUE,
            Self::Start | Self::LineEnd | Self::LastLineEnd => return self.single(rest),
        };
        let run = class.run(rest);
        let Some(stop) = rest.get(run) else {
            return Ok((run, None));
        };
        let event = match (&self, stop) {
            (Self::Name, b':') => {
                *self = Self::Value;
                Some(Event::Name)
            }
            (Self::Value, b'\r') => {
                *self = Self::LineEnd;
                None
            }
            (Self::Name, _) => return Err(bad_name(*stop)),
            (_, b'\n') => return Err(DetailedRejection::bad_request("a bare LF in the header")),
            _ => return Err(DetailedRejection::bad_request("a control character in a field value")),
        };
        Ok((run + 1, event))
    }

    /// The positions where a single byte decides.
    fn single(&mut self, rest: &[u8]) -> Result<(usize, Option<Event>), DetailedRejection> {
        match (&self, rest.first().copied().unwrap_or_default()) {
            (Self::Start, b'\r') => {
                *self = Self::LastLineEnd;
                Ok((1, None))
            }
            (Self::Start, b' ' | b'\t') => {
                Err(DetailedRejection::bad_request("a folded field, or space before a field"))
            }
            (Self::Start, b':') => Err(DetailedRejection::bad_request("an empty field name")),
            (Self::Start, byte) if TOKEN.has(byte) => {
                *self = Self::Name;
                Ok((1, None))
            }
            (Self::Start, byte) => Err(bad_name(byte)),
            (Self::LineEnd, b'\n') => {
                *self = Self::Start;
                Ok((1, Some(Event::Line)))
            }
            (Self::LastLineEnd, b'\n') => Ok((1, Some(Event::End))),
            _ => Err(DetailedRejection::bad_request("a bare CR in the header")),
        }
    }
}

/// The rejection for a byte that is not valid in a name.
fn bad_name(byte: u8) -> DetailedRejection {
    DetailedRejection::bad_request(match byte {
        b' ' | b'\t' => "space before the colon of a field",
        b'\n' => "a bare LF in the header",
        b'\r' => "a field without a colon",
        _ => "an illegal character in a field name",
    })
}
