//! Rewritten queries: parameters that are set or removed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::variables::{Scope, Template, Values};
use crate::base::fault::{Faults, Place};
use crate::http::target;

/// Changes to the query, applied in this order: remove, set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Names of parameters to remove.
    pub remove: Vec<String>,
    /// Parameters that replace all parameters of the same name, with variables.
    pub set: BTreeMap<String, String>,
}

impl Config {
    pub(super) fn check(&self, place: &Place, faults: &mut Faults) -> Query {
        let (place_of_remove, place_of_set) = (place.key("remove"), place.key("set"));
        let mut check_name = |name: &str, place: Place| {
            if name.is_empty() {
                faults.add(place, "the name of the parameter is empty", "write for example `page`");
            }
        };
        self.remove.iter().enumerate().for_each(|(at, name)| check_name(name, place_of_remove.index(at)));
        self.set.keys().for_each(|name| check_name(name, place_of_set.key(name)));
        let set = self.set.iter().filter_map(|(name, value)| {
            let value = Template::check(value, Scope::Request, &place_of_set.key(name), faults)?;
            Some((name.clone(), value))
        });
        Query { set: set.collect(), remove: self.remove.clone() }
    }
}

/// The checked changes.
#[derive(Debug)]
pub(super) struct Query {
    remove: Vec<String>,
    set: Vec<(String, Template)>,
}

impl Query {
    /// The new query, `None` inside if there is none; `None` outside if it is the same.
    pub(super) fn apply(&self, query: Option<&str>, values: &Values<'_>) -> Option<Option<String>> {
        if self.remove.is_empty() && self.set.is_empty() {
            return None;
        }
        let before = query.unwrap_or_default();
        let goes = |pair: &str| {
            let name = decode(pair.split_once('=').map_or(pair, |(name, _)| name));
            let is_name = |known: &String| known.as_bytes() == name;
            self.remove.iter().any(is_name) || self.set.iter().any(|(known, _)| is_name(known))
        };
        // Only pairs that are named are removed: an empty pair stays.
        let kept = before.split('&').filter(|pair| !goes(pair)).collect::<Vec<_>>().join("&");
        let mut after = kept;
        for (name, value) in &self.set {
            if !after.is_empty() {
                after.push('&');
            }
            encode(name.as_bytes(), &mut after);
            after.push('=');
            encode(&value.render(values), &mut after);
        }
        if query.is_some_and(|query| query == after) || query.is_none() && after.is_empty() {
            return None;
        }
        Some((!after.is_empty()).then_some(after))
    }

    /// A few words for `explain`.
    pub(super) fn words(&self) -> Option<String> {
        let set = self.set.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let removed = self.remove.join(", ");
        let parts = [("query sets", set), ("query removes", removed)];
        let parts = parts.iter().filter(|(_, names)| !names.is_empty()).map(|(verb, names)| format!("{verb} {names}"));
        Some(parts.collect::<Vec<_>>().join(", ")).filter(|words| !words.is_empty())
    }
}

/// The bytes of a name or a value of a query: `%XX` and `+` decoded. An incomplete escape stays.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        bytes = rest;
        match (first, escape(rest)) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                bytes = rest.get(2..).unwrap_or_default();
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(*byte),
        }
    }
    decoded
}

/// The byte of the two hexadecimal digits at the start.
fn escape(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Appends a name or a value: bytes that separate parameters or end a query are percent-encoded. Escapes are kept.
fn encode(text: &[u8], to: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for (at, byte) in text.iter().enumerate() {
        let is_escape = || text.get(at.saturating_add(1)..).and_then(escape).is_some();
        if target::is_unreserved(*byte) || b"/:@!$'()*,?".contains(byte) || *byte == b'%' && is_escape() {
            to.push(char::from(*byte));
        } else {
            let digit = |value: u8| DIGITS.get(usize::from(value)).map_or('0', |digit| char::from(*digit));
            to.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}
