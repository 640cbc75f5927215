//! Indexes path tries by host.

use std::collections::HashMap;

use ahash::RandomState;
use http::Method;

use super::host_name::{canonical, with_canonical};
use super::matcher::HostPattern;
use super::trie::{Lookup, Trie};

/// The path tries by host.
#[derive(Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<str>, Box<Trie>, RandomState>,
    wildcards: Label,
    any: Trie,
}

/// A node of the trie over labels, from the right; `trie` is for the hosts below this suffix.
#[derive(Default)]
struct Label {
    children: HashMap<Box<str>, Label, RandomState>,
    trie: Option<Box<Trie>>,
}

impl Hosts {
    /// The trie for a host pattern; created for its first route.
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

    /// The route that matches the request.
    pub(super) fn find<L: Lookup>(
        &self,
        host: Option<&str>,
        (path, method): (&str, &Method),
        lookup: L,
    ) -> Option<usize> {
        // Without routes for hosts, the host need not be looked at.
        host.filter(|_| !(self.exact.is_empty() && self.wildcards.is_empty()))
            .and_then(|host| {
                with_canonical(host, |name| {
                    let exact = self.exact.get(name).and_then(|trie| trie.find(path, method, lookup));
                    exact.or_else(|| self.wildcards.visit(name, &mut |trie| trie.find(path, method, lookup)))
                })
            })
            .or_else(|| self.any.find(path, method, lookup))
    }

    /// The tries of all patterns that match the host, the most specific first.
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
    /// Whether no wildcard was added.
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.trie.is_none()
    }

    /// Calls `visitor` with the tries of matching wildcards, the longest first, until it returns a result.
    /// `rest` is the part of the host in front of this node's suffix.
    ///
    /// The recursion depth is at most the number of labels of a valid host.
    fn visit<'a, R>(&'a self, rest: &str, visitor: &mut impl FnMut(&'a Trie) -> Option<R>) -> Option<R> {
        let (front, label) = match rest.rsplit_once('.') {
            Some((front, label)) => (Some(front), label),
            None => (None, rest),
        };
        let deeper = match (self.children.get(label), front) {
            (Some(child), Some(front)) => child.visit(front, visitor),
            // No label precedes the child's suffix, so the child does not match.
            _ => None,
        };
        if label.is_empty() {
            // Two consecutive dots: the part in front of the suffix is not a label.
            return deeper;
        }
        deeper.or_else(|| self.trie.as_deref().and_then(visitor))
    }
}
