//! Range requests on a stored response with a known length (RFC 9110 §14, §15.3.7, §15.5.17).

use bytes::Bytes;
use http::header::RANGE;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::http::fields::single;

/// A request with more ranges gets the whole response (RFC 9110 §14.2).
pub const MAX_RANGES: usize = 16;

/// What to send for a range request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The whole response with its status: there is no Range, or it is ignored.
    Whole,
    /// 206 (Partial Content) with one range.
    One {
        /// Position of the first byte.
        start: u64,
        /// Position of the last byte.
        end_inclusive: u64,
        /// Value of Content-Range.
        content_range: HeaderValue,
    },
    /// 206 (Partial Content) with several ranges: `head` and bytes of each part, then `trailer`. The response has no
    /// Content-Range.
    Many {
        /// The boundary.
        boundary: String,
        /// Value of Content-Type, which replaces the stored one.
        content_type: HeaderValue,
        /// The parts.
        parts: Vec<Part>,
        /// The end of the body.
        trailer: Bytes,
        /// Length of the body in bytes.
        length: u64,
    },
    /// 416 (Range Not Satisfiable).
    Unsatisfiable {
        /// Value of Content-Range.
        content_range: HeaderValue,
    },
}

/// A part of a `multipart/byteranges` body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Delimiter and header of the part.
    pub head: Bytes,
    /// Position of the first byte.
    pub start: u64,
    /// Position of the last byte.
    pub end_inclusive: u64,
}

/// A range of positions, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u64,
    end: u64,
}

/// A range of the request (RFC 9110 §14.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spec {
    From { first: u64, last: Option<u64> },
    Suffix(u64),
}

/// Plans the response to a request, if [`super::conditional::range_applies`] to it. `status` and `length` are those of
/// the complete stored response; only a 200 with a known length has ranges. `content_type` is the stored one, and
/// `boundary` a random text of letters and digits, which the bodies of a server do not contain.
#[must_use]
pub fn plan(
    request: &HeaderMap,
    status: StatusCode,
    length: Option<u64>,
    content_type: Option<&HeaderValue>,
    boundary: &str,
) -> Plan {
    let (StatusCode::OK, Some(length), Some(range)) = (status, length, single(request, &RANGE)) else {
        return Plan::Whole;
    };
    let Some(specs) = parse(range.as_bytes()) else { return Plan::Whole };
    let mut spans: Vec<Span> = specs.iter().filter_map(|spec| spec.resolve(length)).collect();
    if spans.is_empty() {
        // A suffix of an empty body is satisfiable (§14.1.2), but no Content-Range can express it.
        let asks_for_suffix = specs.iter().any(|spec| matches!(spec, Spec::Suffix(1..)));
        return if length == 0 && asks_for_suffix { Plan::Whole } else { unsatisfiable(length) };
    }
    if is_abusive(&spans) {
        return Plan::Whole;
    }
    coalesce(&mut spans);
    let plan = match spans.as_slice() {
        [span] => one(*span, length),
        spans => many(spans, length, content_type, boundary),
    };
    plan.unwrap_or(Plan::Whole)
}

impl Spec {
    /// The positions in a body; `None` if there are none.
    fn resolve(self, length: u64) -> Option<Span> {
        let end = length.checked_sub(1)?;
        match self {
            Self::From { first, last } if first <= end => {
                Some(Span { start: first, end: last.unwrap_or(end).min(end) })
            }
            Self::Suffix(suffix @ 1..) => Some(Span { start: length.saturating_sub(suffix), end }),
            _ => None,
        }
    }
}

/// The ranges of a Range field. `None` if its unit is not `bytes`, one of them is invalid, or there are too many: the
/// field is ignored then (§14.2).
fn parse(value: &[u8]) -> Option<Vec<Spec>> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, set) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for member in set.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty()) {
        if specs.len() == MAX_RANGES {
            return None;
        }
        specs.push(spec(member)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn spec(text: &str) -> Option<Spec> {
    match text.split_once('-')? {
        ("", suffix) => Some(Spec::Suffix(position(suffix)?)),
        (first, "") => Some(Spec::From { first: position(first)?, last: None }),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(Spec::From { first, last: Some(last) })
        }
    }
}

/// A number of any length; one that is too large is the largest.
fn position(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Whether ranges cost more than they are worth (§14.2): more than two of them overlap others, or more than two are not
/// in ascending order.
fn is_abusive(spans: &[Span]) -> bool {
    let overlaps = |first: &Span, second: &Span| first.start <= second.end && second.start <= first.end;
    let overlapping = spans.iter().enumerate().filter(|(index, span)| {
        spans.iter().enumerate().any(|(other_index, other)| other_index != *index && overlaps(span, other))
    });
    overlapping.count() > 2 || (spans.len() > 2 && !spans.is_sorted_by_key(|span| span.start))
}

/// Joins ranges that overlap or touch (§15.3.7.2). Other ranges keep their order, which is ascending if there are more
/// than two.
fn coalesce(spans: &mut Vec<Span>) {
    spans.dedup_by(|next, kept| {
        let touches = next.start <= kept.end.saturating_add(1) && kept.start <= next.end.saturating_add(1);
        if touches {
            *kept = Span { start: kept.start.min(next.start), end: kept.end.max(next.end) };
        }
        touches
    });
}

fn unsatisfiable(length: u64) -> Plan {
    HeaderValue::try_from(format!("bytes */{length}"))
        .map_or(Plan::Whole, |content_range| Plan::Unsatisfiable { content_range })
}

fn one(span: Span, length: u64) -> Option<Plan> {
    let content_range = HeaderValue::try_from(format!("bytes {}-{}/{length}", span.start, span.end)).ok()?;
    Some(Plan::One { start: span.start, end_inclusive: span.end, content_range })
}

/// A `multipart/byteranges` body (§14.6). `None` if the boundary is unusable or the length overflows.
fn many(spans: &[Span], length: u64, content_type: Option<&HeaderValue>, boundary: &str) -> Option<Plan> {
    // RFC 2046 §5.1.1 allows more characters, but some need quotes.
    let is_boundary_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if boundary.is_empty() || boundary.len() > 70 || !boundary.bytes().all(is_boundary_byte) {
        return None;
    }
    let mut total: u64 = 0;
    let mut parts = Vec::with_capacity(spans.len());
    for span in spans {
        let head = part_head(*span, length, content_type, boundary, parts.is_empty());
        let bytes = (span.end - span.start).checked_add(1)?;
        total = total.checked_add(bytes)?.checked_add(u64::try_from(head.len()).ok()?)?;
        parts.push(Part { head, start: span.start, end_inclusive: span.end });
    }
    let trailer = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    Some(Plan::Many {
        boundary: boundary.to_owned(),
        content_type: HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}")).ok()?,
        parts,
        length: total.checked_add(u64::try_from(trailer.len()).ok()?)?,
        trailer,
    })
}

fn part_head(span: Span, length: u64, content_type: Option<&HeaderValue>, boundary: &str, is_first: bool) -> Bytes {
    let mut head = Vec::with_capacity(160);
    head.extend_from_slice(if is_first { b"--" } else { b"\r\n--" });
    head.extend_from_slice(boundary.as_bytes());
    if let Some(content_type) = content_type {
        head.extend_from_slice(b"\r\nContent-Type: ");
        head.extend_from_slice(content_type.as_bytes());
    }
    head.extend_from_slice(format!("\r\nContent-Range: bytes {}-{}/{length}\r\n\r\n", span.start, span.end).as_bytes());
    Bytes::from(head)
}

/// The value of a Content-Range field (RFC 9110 §14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentRange {
    /// The range of a 206.
    Range {
        /// Position of the first byte.
        start: u64,
        /// Position of the last byte.
        end_inclusive: u64,
        /// Length of the whole representation in bytes, if known.
        complete: Option<u64>,
    },
    /// The length of the representation, of a 416.
    Unsatisfied {
        /// In bytes.
        complete: u64,
    },
}

/// Reads a Content-Range with the unit `bytes`. `None` if it is invalid; numbers beyond 64 bits are too.
#[must_use]
pub fn parse_content_range(value: &[u8]) -> Option<ContentRange> {
    let (unit, rest) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let (range, complete) = rest.split_once('/')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |digits: &str| position(digits).filter(|number| *number != u64::MAX);
    if range == "*" {
        return Some(ContentRange::Unsatisfied { complete: number(complete)? });
    }
    let (start, end) = range.split_once('-')?;
    let (start, end_inclusive) = (number(start)?, number(end)?);
    let complete = if complete == "*" { None } else { Some(number(complete)?) };
    let is_inside = complete.is_none_or(|complete| end_inclusive < complete);
    (start <= end_inclusive && is_inside).then_some(ContentRange::Range { start, end_inclusive, complete })
}

#[cfg(test)]
#[path = "range_tests.rs"]
mod tests;
