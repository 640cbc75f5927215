//! The cookies of a request (RFC 6265 §4.2).

use http::HeaderMap;
use http::header::COOKIE;

/// Names and values in order, the values with their quotes. A cookie without `=` has an empty value.
pub(super) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(|pair| {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at_checked(end).unwrap_or((pair, &[]));
        (name.trim_ascii(), value.strip_prefix(b"=").unwrap_or(value).trim_ascii())
    })
}
