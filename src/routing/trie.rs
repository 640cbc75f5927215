//! The path trie of one host: edges are segments, nodes have routes.

use std::collections::HashMap;

use ahash::RandomState;
use http::Method;

use super::conditional::Conditional;
use super::conditions::RequestFacts;
use super::matcher::Matcher;
use super::methods::Methods;

/// The branches of a node that are examined for similar routes.
const BRANCHES_SEEN: usize = 64;

/// The branches of a node that are followed for similar routes.
const BRANCHES_FOLLOWED: usize = 3;

/// The paths of one host.
#[derive(Default)]
pub(super) struct Trie {
    root: Node,
}

#[derive(Default)]
struct Node {
    // Boxed, because a map reserves space for more children than it has.
    children: HashMap<Box<str>, Box<Node>, RandomState>,
    prefix: Endpoint,
    // Few nodes have exact routes; without them nodes are smaller.
    exact: Option<Box<Exact>>,
}

/// The exact routes of a node.
#[derive(Default)]
struct Exact {
    /// For the path without a trailing slash.
    bare: Endpoint,
    /// For the path with a trailing slash.
    slash: Endpoint,
}

/// The routes of one path by method. No method is listed twice, so the list is short.
#[derive(Default)]
struct Endpoint {
    listed: Vec<(Method, usize)>,
    any: Option<usize>,
    // Few paths have routes with conditions.
    conditional: Option<Box<Conditional>>,
}

/// How the routes of one path are compared with a request.
pub(super) trait Lookup: Copy {
    /// Whether routes with conditions may match.
    const CONDITIONS: bool;

    /// What conditions read.
    fn facts(&self) -> Option<&RequestFacts<'_>>;
}

/// A lookup among routes without conditions, which compiles to nothing else.
#[derive(Clone, Copy)]
pub(super) struct Unconditional;

impl Lookup for Unconditional {
    const CONDITIONS: bool = false;

    fn facts(&self) -> Option<&RequestFacts<'_>> {
        None
    }
}

impl Lookup for &RequestFacts<'_> {
    const CONDITIONS: bool = true;

    fn facts(&self) -> Option<&RequestFacts<'_>> {
        Some(self)
    }
}

/// A route similar to a path.
pub(super) struct SimilarRoute {
    /// Its index in the table.
    pub(super) route: usize,
    /// The number of common segments.
    pub(super) depth: usize,
    /// The number of different bytes in the next segment.
    pub(super) distance: usize,
}

impl Trie {
    /// Adds a route and returns the existing routes that match the same requests.
    pub(super) fn insert(&mut self, matcher: &Matcher, route: usize) -> Vec<usize> {
        let path = &matcher.path;
        let mut node = &mut self.root;
        for segment in path.segments() {
            node = node.children.entry(segment.into()).or_default();
        }
        let endpoint = if !path.is_exact() {
            &mut node.prefix
        } else if path.ends_with_slash() {
            &mut node.exact.get_or_insert_default().slash
        } else {
            &mut node.exact.get_or_insert_default().bare
        };
        if matcher.conditions.is_empty() {
            return endpoint.insert(&matcher.methods, route);
        }
        let new = (&matcher.methods, &matcher.conditions, matcher.priority);
        endpoint.conditional.get_or_insert_default().insert(new, route)
    }

    /// The route that matches the path, in one walk that remembers the best prefix.
    pub(super) fn find<L: Lookup>(&self, path: &str, method: &Method, lookup: L) -> Option<usize> {
        let mut node = &self.root;
        let mut best = node.prefix.find(method, lookup);
        let Some(mut rest) = path.strip_prefix('/') else {
            return best;
        };
        while !rest.is_empty() {
            let (segment, remainder) = split(rest);
            let Some(child) = node.children.get(segment) else {
                return best;
            };
            node = child;
            best = node.prefix.find(method, lookup).or(best);
            let Some(remainder) = remainder else {
                let exact = node.exact.as_ref().and_then(|exact| exact.bare.find(method, lookup));
                return exact.or(best);
            };
            rest = remainder;
        }
        let exact = node.exact.as_ref().and_then(|exact| exact.slash.find(method, lookup));
        exact.or(best)
    }

    /// Adds routes similar to the path: those at the end of the walk, and those below the branches most similar
    /// to the first segment without a branch.
    pub(super) fn nearest(&self, path: &str, found: &mut Vec<SimilarRoute>) {
        let mut node = &self.root;
        let mut depth = 0;
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        let missing = loop {
            let (segment, remainder) = split(rest);
            let Some(child) = node.children.get(segment) else {
                break segment;
            };
            node = child;
            depth += 1;
            rest = remainder.unwrap_or_default();
        };
        let own = node.routes().map(|route| SimilarRoute { route, depth, distance: 0 });
        found.extend(own.take(BRANCHES_FOLLOWED));
        let mut branches: Vec<_> = node
            .children
            .iter()
            .take(BRANCHES_SEEN)
            .filter_map(|(name, child)| Some((distance(missing, name)?, name, child)))
            .collect();
        branches.sort_by_key(|(distance, name, _)| (*distance, *name));
        for (distance, _, child) in branches.into_iter().take(BRANCHES_FOLLOWED) {
            found.extend(child.first().map(|route| SimilarRoute { route, depth, distance }));
        }
    }
}

impl Drop for Node {
    /// Drops the subtree in a loop: a path may have more segments than the stack allows nested drops.
    fn drop(&mut self) {
        let mut pending: Vec<_> = self.children.drain().collect();
        while let Some((_, mut child)) = pending.pop() {
            pending.extend(child.children.drain());
        }
    }
}

impl Node {
    /// All routes of this node.
    fn routes(&self) -> impl Iterator<Item = usize> {
        let exact = self.exact.iter().flat_map(|exact| [&exact.bare, &exact.slash]);
        std::iter::once(&self.prefix).chain(exact).flat_map(Endpoint::routes)
    }

    /// A route of this node, otherwise of the nearest node below it.
    fn first(&self) -> Option<usize> {
        let mut node = self;
        loop {
            if let Some(route) = node.routes().next() {
                return Some(route);
            }
            let branches = node.children.iter().take(BRANCHES_SEEN);
            (_, node) = branches.min_by_key(|(name, _)| *name)?;
        }
    }
}

impl Endpoint {
    fn insert(&mut self, methods: &Methods, route: usize) -> Vec<usize> {
        let mut same = Vec::new();
        if methods.is_any() {
            same.extend(self.any);
            self.any = self.any.or(Some(route));
        }
        for method in methods.iter() {
            match self.listed.iter().find(|(listed, _)| listed == method) {
                Some((_, first)) if same.contains(first) => {}
                Some((_, first)) => same.push(*first),
                None => self.listed.push((method.clone(), route)),
            }
        }
        same
    }

    #[inline]
    fn find<L: Lookup>(&self, method: &Method, lookup: L) -> Option<usize> {
        if L::CONDITIONS
            && let (Some(conditional), Some(facts)) = (&self.conditional, lookup.facts())
            && let Some(route) = conditional.find(method, facts)
        {
            return Some(route);
        }
        let listed = self.listed.iter().find(|(listed, _)| listed == method);
        listed.map(|(_, route)| *route).or(self.any)
    }

    fn routes(&self) -> impl Iterator<Item = usize> {
        let conditional = self.conditional.iter().flat_map(|conditional| conditional.routes());
        self.any.into_iter().chain(self.listed.iter().map(|(_, route)| *route)).chain(conditional)
    }
}

/// The first segment, and the part after its slash, if it has one.
#[inline]
fn split(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('/') {
        Some((segment, remainder)) => (segment, Some(remainder)),
        None => (rest, None),
    }
}

/// The number of bytes between the common prefix and the common suffix of two segments, ignoring case; `None`
/// if that is more than half of them. An empty segment is similar to every other.
fn distance(typed: &str, name: &str) -> Option<usize> {
    let same = |(left, right): &(u8, u8)| left.eq_ignore_ascii_case(right);
    let reversed = typed.bytes().rev().zip(name.bytes().rev());
    let front = typed.bytes().zip(name.bytes()).take_while(same).count();
    let back = reversed.take_while(same).count();
    let common = (front + back).min(typed.len()).min(name.len());
    let longer = typed.len().max(name.len());
    (typed.is_empty() || common * 2 >= longer).then_some(longer - common)
}
