//! Header fields of a message.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The value of a field that has exactly one line.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}
