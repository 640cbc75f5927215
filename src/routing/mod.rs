//! The routing table: finds the route of a request by host, path and method.
//!
//! The table is a pure index. It is generic over its payload.
//!
//! # Rules
//!
//! 1. A path is a prefix of whole segments, case-sensitive: `/apiA` matches `/apiA`, `/apiA/` and `/apiA/x`,
//!    never `/apiAB` or `/apia`. A trailing slash in a prefix has no meaning (`/apiA/` is `/apiA`), and `/`
//!    matches everything, even a request target that is not a path, such as `*`. An exact path matches only
//!    itself: `/apiA` exact does not match `/apiA/`.
//! 2. The order of the routes does not matter. Host takes precedence over path, path over method: the exact
//!    host, then the longest wildcard, then any host; within a host the exact path, then the longest prefix;
//!    within a path a route that lists the method, then one without a list.
//! 3. If the most specific host and path have no route for the request, the next most specific ones are tried:
//!    a shorter prefix if the method does not match, then the next host. If none is left the result is `None`.
//! 4. `*.example.com` matches one or more labels in front (`a.example.com`, `a.b.example.com`), not
//!    `example.com` itself. A comparison of hosts ignores ASCII case, one trailing dot and a `:port`. An IPv6
//!    address is in brackets and compared as text.
//! 5. The query is not part of the path; the caller removes it. There is no other normalisation:
//!    percent-encoding, dot segments and empty segments of a request are compared as received.
//! 6. Methods are compared exactly; a route that lists `GET` does not match `HEAD`.
//! 7. A route may have [`conditions`]. Among the routes of one host and path, those with conditions come before those
//!    without: the highest `priority` first, then routes that list the method. Two of them with equal rank, whose
//!    conditions a request may fulfil together, are a fault.
//!
//! # Why a trie, and its cost
//!
//! Each host has a trie whose edges are path segments. A lookup walks down one segment at a time
//! and remembers the last route that fits, so a path is read at most once per matching host pattern and
//! every segment is hashed once: O(length), for any number of slashes, and it stops at the first
//! segment without a route. Hashing every prefix separately would make a path of 4,000 slashes cost
//! the square of its length. Wildcards are a second trie, over the labels of the host from the
//! right; only nested wildcards add a further walk, and only if the more specific one has no match.
//!
//! The edges of a node are a hash map, so the number of routes does not enter into the cost. The
//! maps are seeded at random, and only configured names are stored in them: requests only look up, so a client can
//! neither add entries nor construct hash collisions.
//!
//! A lookup allocates nothing. A host with capitals is converted in a buffer on the stack, and a host longer
//! than any valid name matches only routes for any host.

pub mod affinity;
pub mod condition_config;
mod conditional;
pub mod conditions;
mod error;
mod host;
mod host_name;
mod matcher;
mod methods;
pub mod split;
mod trie;

#[cfg(test)]
mod condition_tests;
#[cfg(test)]
mod parse_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod table_tests;

use std::fmt;

use http::Method;

pub use conditions::{Condition, Conditions, RequestFacts};
pub use error::PatternError;
pub use matcher::{HostPattern, Matcher, PathPattern};
pub use methods::Methods;
use trie::Unconditional;

/// The most routes that [`Table::nearest`] returns.
const NEAREST: usize = 3;

/// An immutable index from requests to payloads; see the module for its rules.
pub struct Table<T> {
    hosts: host::Hosts,
    // Kept apart from the payloads, so that lookups do not load the matchers into the CPU cache.
    matchers: Vec<Matcher>,
    payloads: Vec<T>,
    /// Whether a route has conditions; otherwise lookups need not look at them.
    has_conditions: bool,
}

/// Two routes that match the same requests with the same precedence, or may do so because of their conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The index of the earlier route in the input of [`Table::build`].
    pub first: usize,
    /// The index of the later route.
    pub second: usize,
    /// The text of the later route's matcher.
    pub matcher: String,
    /// Whether they have different conditions, so that only some requests may match both.
    pub partial: bool,
}

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.partial {
            let Self { first, second, matcher, .. } = self;
            return write!(f, "a request may match route {second} ({matcher}) and route {first} with equal rank");
        }
        write!(
            f,
            "route {} ({}) matches the same requests as route {}; remove one, or give them \
             different hosts, paths or methods",
            self.second, self.matcher, self.first
        )
    }
}

impl std::error::Error for Duplicate {}

impl<T: fmt::Debug> fmt::Debug for Table<T> {
    /// Shows the routes in order, without the index.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.iter().map(|(matcher, payload)| (matcher.to_string(), payload));
        f.debug_map().entries(routes).finish()
    }
}

impl<T> Table<T> {
    /// Indexes the routes.
    ///
    /// # Errors
    ///
    /// The routes with the same host, path and exactness whose methods overlap: both without a list, or with a
    /// common method. Each is paired with the first route that overlaps, so three equal routes are two pairs.
    pub fn build(routes: impl IntoIterator<Item = (Matcher, T)>) -> Result<Self, Vec<Duplicate>> {
        let mut hosts = host::Hosts::default();
        let (mut matchers, mut payloads) = (Vec::<Matcher>::new(), Vec::new());
        let mut duplicates = Vec::new();
        let mut has_conditions = false;
        for (route, (matcher, payload)) in routes.into_iter().enumerate() {
            let trie = hosts.entry(&matcher.host);
            has_conditions |= !matcher.conditions.is_empty();
            for first in trie.insert(&matcher, route) {
                let same = |first: &Matcher| first.conditions == matcher.conditions;
                let partial = !matchers.get(first).is_some_and(same);
                duplicates.push(Duplicate { first, second: route, matcher: matcher.to_string(), partial });
            }
            matchers.push(matcher);
            payloads.push(payload);
        }
        if duplicates.is_empty() { Ok(Self { hosts, matchers, payloads, has_conditions }) } else { Err(duplicates) }
    }

    /// The payload of the matching route among those without conditions.
    ///
    /// `host` is the authority of the request, with or without a port; `path` is without the query.
    pub fn find(&self, host: Option<&str>, path: &str, method: &Method) -> Option<&T> {
        self.payloads.get(self.hosts.find(host, (path, method), Unconditional)?)
    }

    /// The payload of the matching route, as in [`Table::find`], with what conditions read.
    pub fn find_for(&self, host: Option<&str>, path: &str, method: &Method, facts: &RequestFacts<'_>) -> Option<&T> {
        if !self.has_conditions {
            return self.find(host, path, method);
        }
        self.payloads.get(self.hosts.find(host, (path, method), facts)?)
    }

    /// All routes in their original order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Matcher, &T)> {
        self.matchers.iter().zip(&self.payloads)
    }

    /// The number of routes.
    pub fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    /// The texts of up to three routes similar to a request without a route, the closest first.
    ///
    /// Only routes whose host matches the request are named, so that clients do not learn about others. A
    /// bounded number of branches is examined, so that 404 responses stay cheap. It allocates.
    pub fn nearest(&self, host: Option<&str>, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        for trie in self.hosts.fitting(host) {
            trie.nearest(path, &mut found);
        }
        // The sort is stable, so the more specific host comes first among equals.
        found.sort_by_key(|near| (near.distance, std::cmp::Reverse(near.depth)));
        found.iter().take(NEAREST).filter_map(|near| self.matchers.get(near.route)).map(Matcher::to_string).collect()
    }
}
