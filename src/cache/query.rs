//! The part of a query that belongs to the key.
//!
//! A parameter is the text between two `&`; `;` separates nothing, and names are compared as they are written. Some
//! backends read a query differently: they split it at `;` too, decode names, or ignore case. If the key then lacked a
//! parameter that the backend uses, a client could store its response under the key of other clients. So a parameter
//! is left out of the key only if no such reading gives it a name that matters.

use std::borrow::Cow;

use crate::cache::rules::QueryRule;

/// Names of parameters that advertising and analytics add.
const TRACKING: [&str; 38] = [
    "gclid",
    "gclsrc",
    "gbraid",
    "wbraid",
    "dclid",
    "gad_source",
    "gad_campaignid",
    "srsltid",
    "_ga",
    "_gl",
    "fbclid",
    "igsh",
    "igshid",
    "msclkid",
    "mc_cid",
    "mc_eid",
    "yclid",
    "ymclid",
    "ysclid",
    "_openstat",
    "ttclid",
    "twclid",
    "li_fat_id",
    "epik",
    "rdt_cid",
    "ScCid",
    "irclickid",
    "_hsenc",
    "_hsmi",
    "__hssc",
    "__hstc",
    "__hsfp",
    "mkt_tok",
    "vero_id",
    "oly_anon_id",
    "oly_enc_id",
    "_kx",
    "wickedid",
];

/// How the names of parameters start that analytics add.
const TRACKING_PREFIXES: [&str; 2] = ["utm_", "mtm_"];

/// The part of `query` that belongs to the key; `None`: nothing, as if the request had no query. The empty query of
/// `/path?` is kept, except that it is nothing under [`QueryRule::Only`].
#[must_use]
pub fn of_key<'a>(query: Option<&'a str>, rule: &QueryRule) -> Option<Cow<'a, str>> {
    let query = query?;
    match rule {
        QueryRule::Whole => Some(Cow::Borrowed(query)),
        QueryRule::Sorted => Some(Cow::Owned(sorted(query.split('&').collect()))),
        QueryRule::WithoutTracking => without_tracking(query),
        QueryRule::Only(names) => only(query, names),
        QueryRule::None => None,
    }
}

fn without_tracking(query: &str) -> Option<Cow<'_, str>> {
    if !query.split('&').any(is_tracking) {
        return Some(Cow::Borrowed(query));
    }
    let kept: Vec<&str> = query.split('&').filter(|parameter| !is_tracking(parameter)).collect();
    (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
}

fn only<'a>(query: &str, names: &[String]) -> Option<Cow<'a, str>> {
    let names: Vec<Cow<'_, str>> = names.iter().map(|name| read_name(name)).collect();
    let matters = |parameter: &&str| parameter.split(';').any(|part| names.contains(&read_name(name(part))));
    let kept: Vec<&str> = query.split('&').filter(matters).collect();
    (!kept.is_empty()).then(|| Cow::Owned(sorted(kept)))
}

/// The parameters in the order of their names. Parameters that a backend may read as one name keep their order, and
/// all do if a backend may split one of them at `;`.
fn sorted(mut parameters: Vec<&str>) -> String {
    if !parameters.iter().any(|parameter| parameter.contains(';')) {
        parameters.sort_by_cached_key(|parameter| read_name(name(parameter)));
    }
    parameters.join("&")
}

/// Whether a parameter serves only tracking, also if a backend splits it at `;`.
fn is_tracking(parameter: &str) -> bool {
    parameter.split(';').all(|part| {
        let name = name(part);
        TRACKING_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || TRACKING.contains(&name)
    })
}

/// The name of a parameter, as it is written.
fn name(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// The most general reading of a name: decoded, in lower case, without leading spaces, with `_` for spaces and dots
/// (as PHP does), and without an index in brackets.
fn read_name(name: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if name.bytes().all(is_plain) {
        return Cow::Borrowed(name);
    }
    let decoded = decode(name);
    let start = decoded.iter().position(|byte| *byte != b' ').unwrap_or(decoded.len());
    let bytes = decoded.iter().skip(start).take_while(|byte| !matches!(byte, b'[' | 0));
    let read: Vec<u8> =
        bytes.map(|byte| if matches!(byte, b' ' | b'.') { b'_' } else { byte.to_ascii_lowercase() }).collect();
    Cow::Owned(String::from_utf8_lossy(&read).into_owned())
}

/// Decodes percent-encoded bytes, and `+` to a space. Incomplete encodings stay.
fn decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let escaped = match after {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => decoded.push(if *first == b'+' { b' ' } else { *first }),
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
