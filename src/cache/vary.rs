//! Vary: the request headers that select a stored response, and their variance (RFC 9111 §4.1, RFC 9110 §12.5.5).
//!
//! Two requests have the same variance only if RFC 9111 §4.1 lets a cache treat their values as a match: the values
//! differ in whitespace where lists allow it, in the distribution over field lines, or in what the definition of the
//! field ignores. A value that a rule of this module does not understand is compared as it is.

use std::borrow::Cow;

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE, HOST, ORIGIN, REFERER, USER_AGENT, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_cache::key::{HashBinary, hash_key};

/// A response whose Vary has more names is not reused.
pub const MAX_NAMES: usize = 16;

/// The request headers that select a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VaryNames {
    /// The response is the same for all requests.
    #[default]
    None,
    /// These headers, sorted and unique, at most [`MAX_NAMES`].
    Names(Vec<HeaderName>),
    /// `*`, too many names, or something that is no name: no other request matches.
    Any,
}

/// The names in the Vary fields of a response.
#[must_use]
pub fn names(headers: &HeaderMap) -> VaryNames {
    let mut names = Vec::new();
    for line in headers.get_all(VARY) {
        for member in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if member.is_empty() {
                continue;
            }
            // `*` is a legal name for the `http` crate.
            match HeaderName::from_bytes(member) {
                Ok(name) if member != b"*" => names.push(name),
                _ => return VaryNames::Any,
            }
        }
    }
    of_list(names)
}

/// The headers that select any of two responses of one key.
#[must_use]
pub fn union(first: &VaryNames, second: &VaryNames) -> VaryNames {
    match (first, second) {
        (VaryNames::Any, _) | (_, VaryNames::Any) => VaryNames::Any,
        (VaryNames::None, other) | (other, VaryNames::None) => other.clone(),
        (VaryNames::Names(first), VaryNames::Names(second)) => of_list(first.iter().chain(second).cloned().collect()),
    }
}

fn of_list(mut names: Vec<HeaderName>) -> VaryNames {
    names.sort_unstable_by(|first, second| first.as_str().cmp(second.as_str()));
    names.dedup();
    match names.len() {
        0 => VaryNames::None,
        1..=MAX_NAMES => VaryNames::Names(names),
        _ => VaryNames::Any,
    }
}

/// The hash of the normalised values that a request has in the named headers. `None` for [`VaryNames::None`], and for
/// [`VaryNames::Any`], which no request matches.
#[must_use]
pub fn variance(names: &VaryNames, request: &HeaderMap) -> Option<HashBinary> {
    let VaryNames::Names(names) = names else { return None };
    let mut text = Vec::with_capacity(128);
    for name in names {
        append(&mut text, name.as_str().as_bytes());
        match normalised(name, request) {
            Some(value) => {
                text.push(1);
                append(&mut text, &value);
            }
            None => text.push(0),
        }
    }
    Some(hash_key(text))
}

/// Appends bytes after their length, so that different sequences never have the same text.
fn append(text: &mut Vec<u8>, bytes: &[u8]) {
    text.extend_from_slice(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
    text.extend_from_slice(bytes);
}

/// The normalised value of a request header; `None` if the request lacks it.
fn normalised<'a>(name: &HeaderName, request: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    let value = combined(name, request)?;
    if *name == ACCEPT_ENCODING || *name == ACCEPT_LANGUAGE {
        let preferences = preferences(&value, *name == ACCEPT_ENCODING);
        return Some(preferences.map_or_else(|| without_list_whitespace(value), Cow::Owned));
    }
    if *name == HOST {
        return Some(Cow::Owned(value.to_ascii_lowercase()));
    }
    // These fields are no lists: whitespace at a comma belongs to the value.
    if [AUTHORIZATION, COOKIE, ORIGIN, REFERER, USER_AGENT].contains(name) {
        return Some(value);
    }
    Some(without_list_whitespace(value))
}

/// All field lines as one value (RFC 9110 §5.3).
fn combined<'a>(name: &HeaderName, request: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    let mut lines = request.get_all(name).iter().map(HeaderValue::as_bytes).map(<[u8]>::trim_ascii);
    let first = lines.next()?;
    let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
    let separator: &[u8] = if *name == COOKIE { b"; " } else { b"," };
    let all: Vec<&[u8]> = [first, second].into_iter().chain(lines).collect();
    Some(Cow::Owned(all.join(separator)))
}

/// Removes the whitespace around the commas of a list, but not inside quoted strings (RFC 9110 §5.6.1, §5.6.4).
fn without_list_whitespace(value: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let has_whitespace = |pair: &[u8]| matches!(pair, [b',', b' ' | b'\t'] | [b' ' | b'\t', b',']);
    if !value.windows(2).any(has_whitespace) {
        return value;
    }
    let mut kept: Vec<u8> = Vec::with_capacity(value.len());
    let (mut is_quoted, mut is_escaped) = (false, false);
    for byte in value.iter().copied() {
        if is_quoted {
            is_quoted = byte != b'"' || is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            kept.push(byte);
            continue;
        }
        match byte {
            b' ' | b'\t' if kept.last() == Some(&b',') => continue,
            b',' => kept.truncate(kept.trim_ascii_end().len()),
            b'"' => is_quoted = true,
            _ => {}
        }
        kept.push(byte);
    }
    Cow::Owned(kept)
}

/// A list of names with weights in a form that does not depend on case, order and the notation of weights: servers
/// should not rely on the order (RFC 9110 §12.5.4), and the names are case-insensitive (§8.4.1, §12.5.4). `None` if
/// the value has another form.
fn preferences(value: &[u8], are_codings: bool) -> Option<Vec<u8>> {
    // This runs for most hits on responses with Vary, so it allocates once for each of text, members and result.
    let text = value.to_ascii_lowercase();
    let mut members: Vec<Preference<'_>> = Vec::with_capacity(8);
    let listed = text.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    for member in listed.filter(|member| !member.is_empty()) {
        members.push(Preference::read(member)?);
    }
    // Equal names keep their order, because backends may use the first or the last.
    members.sort_by_key(|member| member.name);
    let has_wildcard = members.iter().any(|member| member.name == b"*");
    let mut normal = Vec::with_capacity(value.len() + members.len() * 4);
    for member in &members {
        let is_repeated = || members.iter().filter(|other| other.name == member.name).count() > 1;
        // A coding that is not listed is as unacceptable as one with weight 0, except `identity`, or if there is a
        // wildcard (RFC 9110 §12.5.3).
        if are_codings && member.weight == 0 && !has_wildcard && member.name != b"identity" && !is_repeated() {
            continue;
        }
        normal.extend_from_slice(member.name);
        normal.push(b';');
        normal.extend_from_slice(&member.weight.to_be_bytes());
    }
    Some(normal)
}

/// A member of a list of names with weights.
struct Preference<'a> {
    /// In lower case, without `;`.
    name: &'a [u8],
    /// In thousandths (RFC 9110 §12.4.2).
    weight: u16,
}

impl<'a> Preference<'a> {
    /// Reads a member in lower case. `None` if it has another form.
    fn read(member: &'a [u8]) -> Option<Self> {
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'*');
        let end = member.iter().position(|byte| !is_name(byte)).unwrap_or(member.len());
        let (name, rest) = member.split_at_checked(end)?;
        let weight = match rest.trim_ascii_start() {
            [] => 1000,
            [b';', parameter @ ..] => weight(parameter.trim_ascii_start().strip_prefix(b"q=")?)?,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { name, weight })
    }
}

/// A weight in thousandths.
fn weight(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] => (whole, fraction),
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = [*whole].into_iter().chain(fraction.iter().copied()).chain([b'0'; 3]).take(4);
    let weight = digits.fold(0, |number: u16, digit| number * 10 + u16::from(digit - b'0'));
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
#[path = "vary_tests.rs"]
mod tests;
