//! The routing table: which route takes a request, by host, path and method.
//!
//! The table is a pure index. It is generic in its payload and knows nothing of what a route
//! leads to.
//!
//! # Rules
//!
//! 1. A path is a prefix on whole segments, case-sensitive: `/apiA` takes `/apiA`, `/apiA/` and
//!    `/apiA/x`, never `/apiAB` or `/apia`. A trailing slash in a prefix means nothing (`/apiA/`
//!    is `/apiA`), and `/` takes everything, even a request target that is no path, such as `*`.
//!    An exact path takes only that very path: `/apiA` exact does not take `/apiA/`.
//! 2. The order of the routes never matters. Host beats path beats method: the exact host, then
//!    the longest wildcard, then any host; within a host the exact path, then the longest prefix;
//!    within a path a route that lists the method, then one without a list.
//! 3. Where the best candidate has no route for the request the next one is tried: a shorter
//!    prefix where the method does not fit, then the next host. If none is left the answer is
//!    `None`.
//! 4. `*.example.com` takes one or more labels in front (`a.example.com`, `a.b.example.com`), not
//!    `example.com` itself. Hosts compare without regard to ASCII case, one trailing dot and a
//!    `:port`. An IPv6 address stands in brackets and compares as text.
//! 5. The query is not part of the path; the caller strips it. Nothing else is normalised either:
//!    percent escapes, dot segments and empty segments of a request are compared as they came.
//! 6. Methods are compared as they are; a route that lists `GET` does not thereby take `HEAD`.
//!
//! # Why a trie, and what it costs
//!
//! Each host has a trie whose edges are path segments. A lookup walks down one segment at a time
//! and remembers the last route that fits, so a path is read at most once per host class and
//! every segment is hashed once: O(length), however many slashes it has, and it stops at the
//! first segment that no route has. Hashing every prefix anew would make a path of 4,000 slashes
//! cost the square of its length. Wildcards are a second trie, over the labels of the host from
//! the right; only wildcards nested in each other add a further walk, and only when the more
//! specific one does not answer.
//!
//! The edges of a node are a hash map, so the number of routes does not enter into the cost. The
//! maps are seeded at random, and only configured names are stored in them: a request can only
//! look up, so it can neither make a bucket longer nor aim at a collision it cannot see.
//!
//! A lookup allocates nothing. A host with capitals is folded in a buffer on the stack, and a
//! host longer than any valid name is left to the routes for any host.

pub mod affinity;
mod error;
mod host;
mod matcher;
mod methods;
pub mod split;
mod trie;

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

pub use error::PatternError;
pub use matcher::{HostPattern, Matcher, PathPattern};
pub use methods::Methods;

/// How many routes [`Table::nearest`] names at most.
const NEAREST: usize = 3;

/// An immutable index from requests to payloads; see the module for its rules.
pub struct Table<T> {
    hosts: host::Hosts,
    // RunningPools apart from the payloads, so that lookups do not pull the texts through the cache.
    matchers: Vec<Matcher>,
    payloads: Vec<T>,
}

/// Two routes that would take the same requests with the same precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The position of the earlier route among those given to [`Table::build`].
    pub first: usize,
    /// The position of the later route.
    pub second: usize,
    /// The text of the later route's matcher.
    pub matcher: String,
}

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "route {} ({}) takes the same requests as route {}; remove one, or give them \
             different hosts, paths or methods",
            self.second, self.matcher, self.first
        )
    }
}

impl std::error::Error for Duplicate {}

impl<T: fmt::Debug> fmt::Debug for Table<T> {
    /// Shows the routes in their order; the index says no more than they do.
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
    /// Returns the routes with the same host, path and exactness whose methods overlap: both
    /// without a list, or with a method in common. Each is paired with the first route that has
    /// what they share, so three routes alike are two pairs.
    pub fn build(routes: impl IntoIterator<Item = (Matcher, T)>) -> Result<Self, Vec<Duplicate>> {
        let mut hosts = host::Hosts::default();
        let (mut matchers, mut payloads) = (Vec::new(), Vec::new());
        let mut duplicates = Vec::new();
        for (route, (matcher, payload)) in routes.into_iter().enumerate() {
            let trie = hosts.entry(&matcher.host);
            for first in trie.insert(&matcher.path, &matcher.methods, route) {
                let matcher = matcher.to_string();
                duplicates.push(Duplicate { first, second: route, matcher });
            }
            matchers.push(matcher);
            payloads.push(payload);
        }
        if duplicates.is_empty() { Ok(Self { hosts, matchers, payloads }) } else { Err(duplicates) }
    }

    /// The payload of the route that takes the request, if there is one.
    ///
    /// `host` is the authority as the request has it, with or without a port; `path` is without
    /// the query.
    pub fn find(&self, host: Option<&str>, path: &str, method: &Method) -> Option<&T> {
        self.payloads.get(self.hosts.find(host, path, method)?)
    }

    /// All routes in the order in which they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Matcher, &T)> {
        self.matchers.iter().zip(&self.payloads)
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Whether there is no route at all.
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    /// The texts of up to three routes close to a request that none took, the closest first.
    ///
    /// Only routes of hosts that fit the request are named, so that nobody learns of the others.
    /// A look at a bounded number of branches, not at every route, decides what is close: an
    /// answer 404 must not be a way to make the proxy work. It allocates.
    pub fn nearest(&self, host: Option<&str>, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        for trie in self.hosts.fitting(host) {
            trie.nearest(path, &mut found);
        }
        // The sort is stable, so that of equally close routes the more specific host leads.
        found.sort_by_key(|near| (near.distance, std::cmp::Reverse(near.depth)));
        found.iter().take(NEAREST).filter_map(|near| self.matchers.get(near.route)).map(Matcher::to_string).collect()
    }
}
