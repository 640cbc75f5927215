//! Builds a request from the bytes of its head, which [`super::HeadReader`] has accepted.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use memchr::memchr;
use pingora_http::RequestHeader;

use super::Head;
use super::grammar::trim;
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::http::target;

/// The longest target that the `http` crate accepts.
const TARGET_MAX: usize = u16::MAX as usize - 1;
/// Room for the fields that the proxy adds.
const ADDED_FIELDS: usize = 6;

/// The request in `bytes`, the head alone: from the request line to the empty line. Values share the memory of
/// `bytes`.
///
/// # Errors
/// If a part that is legal here exceeds a limit of the `http` crate, such as the length of a name.
pub fn parse(bytes: &Bytes, head: &Head) -> Result<RequestHeader, DetailedRejection> {
    let too_long = |_| DetailedRejection::bad_request("a method, target or field that is too long");
    let shift = |at: usize| at.saturating_sub(head.start);
    let text = |range: &std::ops::Range<usize>| bytes.get(shift(range.start)..shift(range.end)).unwrap_or_default();
    let method = Method::from_bytes(text(&head.method)).map_err(|e| too_long(e.into()))?;
    let headers = fields(bytes, shift(head.target.end), head.fields).map_err(too_long)?;
    let received = text(&head.target);
    let mut request = if received.first() == Some(&b'/') {
        let uri = Uri::from_maybe_shared(bytes.slice(shift(head.target.start)..shift(head.target.end)));
        let mut parts = Request::new(()).into_parts().0;
        parts.uri = uri.map_err(|e| too_long(e.into()))?;
        parts.method = method;
        parts.headers = headers;
        RequestHeader::from(parts)
    } else {
        // Pingora's type keeps a target in absolute form.
        let uri = RequestHeader::build_no_case(method, received, None);
        let absolute = uri.map_err(|_| DetailedRejection::bad_request("a target that is not a URL"))?;
        let mut parts = absolute.as_owned_parts();
        parts.headers = headers;
        RequestHeader::from(parts)
    };
    request.set_version(if head.version_1_1 { Version::HTTP_11 } else { Version::HTTP_10 });
    Ok(request)
}

/// Percent-encodes the target of `bytes`, the head alone, and moves the positions in `head`. Bytes that a path must not
/// have are encoded, and those that the `http` crate refuses in a query (see [`target::encode`]).
///
/// # Errors
/// If the encoded target is longer than the `http` crate allows.
pub fn encode_target(bytes: &[u8], head: &mut Head) -> Result<BytesMut, DetailedRejection> {
    let begin = head.authority.as_ref().map_or(head.target.start, |authority| authority.end);
    let (from, to) = (begin.saturating_sub(head.start), head.target.end.saturating_sub(head.start));
    let encoded = target::encode(bytes.get(from..to).unwrap_or_default());
    if begin - head.target.start + encoded.len() > TARGET_MAX {
        return Err(DetailedRejection { rejection: Rejection::TargetTooLong, detail: "the target is too long" });
    }
    let mut encoded_head = BytesMut::with_capacity(bytes.len() + encoded.len());
    for part in [bytes.get(..from).unwrap_or_default(), encoded.as_bytes(), bytes.get(to..).unwrap_or_default()] {
        encoded_head.extend_from_slice(part);
    }
    let longer = encoded_head.len().saturating_sub(bytes.len());
    head.target.end += longer;
    head.length += longer;
    head.host = head.host.take().map(|host| host.start + longer..host.end + longer);
    head.encode_target = false;
    Ok(encoded_head)
}

/// The fields after the request line, whose target ends at `from`.
fn fields(bytes: &Bytes, from: usize, count: usize) -> Result<HeaderMap, http::Error> {
    let mut headers = HeaderMap::with_capacity(count + ADDED_FIELDS);
    let line_end = |from: usize| memchr(b'\n', bytes.get(from..).unwrap_or_default()).map(|length| from + length);
    let mut at = line_end(from).map_or(bytes.len(), |end| end + 1);
    while let Some(end) = line_end(at) {
        let line = bytes.get(at..end).unwrap_or_default();
        at = end + 1;
        let Some(colon) = memchr(b':', line) else { break };
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        let value = trim(value.strip_prefix(b":").unwrap_or_default().strip_suffix(b"\r").unwrap_or_default());
        headers.try_append(HeaderName::from_bytes(name)?, HeaderValue::from_maybe_shared(bytes.slice_ref(value))?)?;
    }
    Ok(headers)
}
