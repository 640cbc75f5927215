//! Hosts: bringing the host of a request to the form in which it is compared, and the index from
//! it to the tries of paths.

use std::collections::HashMap;

use ahash::RandomState;
use http::Method;

use super::matcher::HostPattern;
use super::trie::Trie;

/// The longest host name that DNS allows, without its trailing dot.
pub(super) const LONGEST_HOST: usize = 253;

/// The tries of paths by host.
#[derive(Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<str>, Box<Trie>, RandomState>,
    wildcards: Label,
    any: Trie,
}

/// A node of the trie over labels from the right; `trie` is for the hosts below this suffix.
#[derive(Default)]
struct Label {
    children: HashMap<Box<str>, Label, RandomState>,
    trie: Option<Box<Trie>>,
}

impl Hosts {
    /// The trie for a host pattern, which is made if it is the first of its kind.
    pub(super) fn entry(&mut self, host: &HostPattern) -> &mut Trie {
        match host {
            HostPattern::Any => &mut self.any,
            HostPattern::Exact(name) => self.exact.entry(canonical(name).into_boxed_str()).or_default(),
            HostPattern::Wildcard(suffix) => {
                let mut node = &mut self.wildcards;
                for label in canonical(suffix).rsplit('.') {
                    node = node.children.entry(label.into()).or_default();
                }
                node.trie.get_or_insert_default()
            }
        }
    }

    /// The route that takes the request.
    pub(super) fn find(&self, host: Option<&str>, path: &str, method: &Method) -> Option<usize> {
        host.and_then(|host| {
            with_canonical(host, |name| {
                let exact = self.exact.get(name).and_then(|trie| trie.find(path, method));
                exact.or_else(|| self.wildcards.visit(name, &mut |trie| trie.find(path, method)))
            })
        })
        .or_else(|| self.any.find(path, method))
    }

    /// The tries of all patterns that fit the host, the most specific first.
    pub(super) fn fitting(&self, host: Option<&str>) -> Vec<&Trie> {
        let mut tries = Vec::new();
        host.and_then(|host| {
            with_canonical(host, |name| {
                tries.extend(self.exact.get(name).map(Box::as_ref));
                self.wildcards.visit(name, &mut |trie| {
                    tries.push(trie);
                    None::<()>
                })
            })
        });
        tries.push(&self.any);
        tries
    }
}

impl Label {
    /// Offers the tries of the wildcards that fit to `answer`, the longest first, until it has
    /// one. `rest` is what stands in front of this node's suffix.
    ///
    /// The recursion is no deeper than the labels of a host of valid length.
    fn visit<'a, R>(&'a self, rest: &str, answer: &mut impl FnMut(&'a Trie) -> Option<R>) -> Option<R> {
        let (front, label) = match rest.rsplit_once('.') {
            Some((front, label)) => (Some(front), label),
            None => (None, rest),
        };
        let deeper = match (self.children.get(label), front) {
            (Some(child), Some(front)) => child.visit(front, answer),
            // Nothing stands in front of the child's suffix, so it takes no part.
            _ => None,
        };
        if label.is_empty() {
            // Two dots in a row: what is in front of the suffix is not a label.
            return deeper;
        }
        deeper.or_else(|| self.trie.as_deref().and_then(answer))
    }
}

/// The host as it is compared: in lower case, without port and trailing dot.
pub(super) fn canonical(host: &str) -> String {
    bare(host).to_ascii_lowercase()
}

/// Calls `then` with the host as it is compared, without allocating; `None` if it is too long to
/// be one.
fn with_canonical<R>(host: &str, then: impl FnOnce(&str) -> Option<R>) -> Option<R> {
    let name = bare(host);
    if name.len() > LONGEST_HOST {
        return None;
    }
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return then(name);
    }
    let mut buffer = [0; LONGEST_HOST];
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    then(str::from_utf8(lower).ok()?)
}

/// The host without port and trailing dot.
fn bare(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        // In an IPv6 address only a colon behind the brackets is in front of a port.
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && name.starts_with('[') == name.ends_with(']') =>
        {
            name
        }
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}
