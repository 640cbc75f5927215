//! The primary key of a request (RFC 9111 §2), as bytes.
//!
//! A key is a sequence of fields. A field is a letter, the length of its value in decimal, `:` and the value; or a
//! letter and `-` if there is no value. So two different sequences never have the same bytes. The fields of the URI
//! come first:
//!
//! | letter | value |
//! |---|---|
//! | `r` | the space, if not empty |
//! | `s` | the scheme, if it belongs to the key |
//! | `h` | the host, if it belongs to the key |
//! | `p` | the path |
//! | `W` `S` `T` `O` `N` | the query, by [`QueryRule`]; `O` follows `o`, the names |
//!
//! They are the *URI key*. The fields `n` (name of a header) or `c` (name of a cookie), each with `v` (its value) follow.
//! The key names the rules that it depends on. So a change of the configuration does not change the meaning of a key.

use http::HeaderMap;

use crate::cache::cookies::cookies;
use crate::cache::rules::{KeyRules, QueryRule};
pub use crate::cache::target::{Target, normal_host};
use crate::cache::{query, reference};

/// The primary key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    bytes: Vec<u8>,
    uri_length: usize,
}

impl Key {
    /// The key of a request for `target` with `headers`.
    #[must_use]
    pub fn new(target: &Target<'_>, rules: &KeyRules, headers: &HeaderMap) -> Self {
        let mut bytes = uri_key(target, rules);
        let uri_length = bytes.len();
        for name in &rules.headers {
            field(&mut bytes, b'n', name.as_str().as_bytes());
            let mut lines = headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
            match (lines.next(), lines.next()) {
                (None, _) => absent(&mut bytes, b'v'),
                (Some(only), None) => field(&mut bytes, b'v', only),
                // A backend may use only one of several lines, even if they mean the same as one line with all values (RFC
                // 9110 §5.3). No value has a line end.
                (Some(first), Some(second)) => several(&mut bytes, first, second, lines, b'\n'),
            }
        }
        for name in &rules.cookies {
            field(&mut bytes, b'c', name.as_bytes());
            let named = cookies(headers).filter(|(known, _)| *known == name.as_bytes());
            let mut values = named.map(|(_, value)| value);
            match (values.next(), values.next()) {
                (None, _) => absent(&mut bytes, b'v'),
                (Some(only), None) => field(&mut bytes, b'v', only),
                // Backends differ in which of them they use. No value has a semicolon.
                (Some(first), Some(second)) => several(&mut bytes, first, second, values, b';'),
            }
        }
        Self { bytes, uri_length }
    }

    /// The whole key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The URI key: the part that the values of headers and cookies do not change.
    #[must_use]
    pub fn uri(&self) -> &[u8] {
        self.bytes.get(..self.uri_length).unwrap_or(&self.bytes)
    }

    /// The whole key, for a store.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The URI key of a target: the first part of the keys of all requests for it.
#[must_use]
pub fn uri_key(target: &Target<'_>, rules: &KeyRules) -> Vec<u8> {
    let query_length = target.query.map_or(0, str::len);
    let mut key = Vec::with_capacity(target.host.len() + target.path.len() + query_length + 64);
    if !target.space.is_empty() {
        field(&mut key, b'r', target.space.as_bytes());
    }
    if target.scheme_in_key {
        field(&mut key, b's', target.scheme.as_bytes());
    }
    if rules.host {
        field(&mut key, b'h', normal_host(target.host, target.scheme).as_bytes());
    }
    field(&mut key, b'p', target.path.as_bytes());
    if let QueryRule::Only(names) = &rules.query {
        field(&mut key, b'o', names.join("&").as_bytes());
    }
    match query::of_key(target.query, &rules.query) {
        Some(query) => field(&mut key, query_letter(&rules.query), query.as_bytes()),
        None => absent(&mut key, query_letter(&rules.query)),
    }
    key
}

/// The URI key of the target that `reference` of a response (Location, Content-Location) names. `None` if its origin
/// (scheme, host, port) is not that of the request, `base` (RFC 9111 §4.4).
#[must_use]
pub fn same_origin_key(base: &Target<'_>, rules: &KeyRules, reference: &str) -> Option<Vec<u8>> {
    let resolved = reference::resolve(base, reference)?;
    Some(uri_key(&Target { path: &resolved.path, query: resolved.query.as_deref(), ..*base }, rules))
}

const fn query_letter(rule: &QueryRule) -> u8 {
    match rule {
        QueryRule::Whole => b'W',
        QueryRule::Sorted => b'S',
        QueryRule::WithoutTracking => b'T',
        QueryRule::Only(_) => b'O',
        QueryRule::None => b'N',
    }
}

fn field(out: &mut Vec<u8>, letter: u8, value: &[u8]) {
    out.push(letter);
    decimal(out, value.len());
    out.push(b':');
    out.extend_from_slice(value);
}

/// A field with all values, separated by a byte that none of them has.
fn several<'a>(out: &mut Vec<u8>, first: &'a [u8], second: &'a [u8], rest: impl Iterator<Item = &'a [u8]>, by: u8) {
    let all: Vec<&[u8]> = [first, second].into_iter().chain(rest).collect();
    field(out, b'v', &all.join(&by));
}

fn absent(out: &mut Vec<u8>, letter: u8) {
    out.extend_from_slice(&[letter, b'-']);
}

fn decimal(out: &mut Vec<u8>, number: usize) {
    if number >= 10 {
        decimal(out, number / 10);
    }
    // A digit is less than 10.
    out.push(b'0' + u8::try_from(number % 10).unwrap_or_default());
}

/// A key in a form for people, such as `https://example.com/path?a=1 [accept-language: de] [cookie theme missing]`.
/// `*` stands for any host. Bytes that are no key are escaped.
#[must_use]
pub fn readable(key: &[u8]) -> String {
    let mut text = Readable::default();
    let mut rest = key;
    while !rest.is_empty() {
        let Some((field, after)) = next_field(rest) else { return key.escape_ascii().to_string() };
        text.add(&field);
        rest = after;
    }
    text.finish()
}

/// A field of a key.
struct Field<'a> {
    letter: u8,
    value: Option<&'a [u8]>,
}

/// The first field, and the bytes after it.
fn next_field(key: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let (letter, rest) = key.split_first()?;
    if let Some(after) = rest.strip_prefix(b"-") {
        return Some((Field { letter: *letter, value: None }, after));
    }
    let colon = rest.iter().position(|byte| *byte == b':')?;
    let (digits, rest) = rest.split_at_checked(colon)?;
    let length = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let (value, after) = rest.get(1..)?.split_at_checked(length)?;
    Some((Field { letter: *letter, value: Some(value) }, after))
}

/// The parts of a key that purges name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UriParts<'a> {
    /// The URI key.
    pub uri: &'a [u8],
    /// The normalised host; empty if it is not part of the key.
    pub host: &'a str,
    /// The path.
    pub path: &'a str,
}

/// The parts of a key. Bytes that are no key are one URI key without host and path.
#[must_use]
pub fn uri_parts(key: &[u8]) -> UriParts<'_> {
    let mut parts = UriParts { uri: key, ..UriParts::default() };
    let mut rest = key;
    while let Some((Field { letter, value }, after)) = next_field(rest) {
        let text = || value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
        match letter {
            b'h' => parts.host = text(),
            b'p' => parts.path = text(),
            b'n' | b'c' => {
                parts.uri = key.get(..key.len() - rest.len()).unwrap_or(key);
                break;
            }
            _ => {}
        }
        rest = after;
    }
    parts
}

/// Collects the fields of a key.
#[derive(Default)]
struct Readable {
    space: String,
    scheme: String,
    host: Option<String>,
    rest: String,
}

impl Readable {
    fn add(&mut self, field: &Field<'_>) {
        let text = field.value.map(|value| value.escape_ascii().to_string());
        let shown = text.clone().unwrap_or_default();
        match field.letter {
            b'r' => self.space = format!(" [space {shown}]"),
            b's' => self.scheme = format!("{shown}://"),
            b'h' => self.host = text,
            b'p' => self.rest.push_str(&shown),
            b'W' | b'S' | b'T' | b'O' => self.rest.extend(text.map(|query| format!("?{query}"))),
            b'n' => self.rest.push_str(&format!(" [{shown}")),
            b'c' => self.rest.push_str(&format!(" [cookie {shown}")),
            b'v' => self.rest.push_str(&text.map_or_else(|| " missing]".to_owned(), |value| format!(": {value}]"))),
            _ => {}
        }
    }

    fn finish(self) -> String {
        format!("{}{}{}{}", self.scheme, self.host.as_deref().unwrap_or("*"), self.rest, self.space)
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
