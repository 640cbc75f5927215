//! The routes of one path that have conditions, indexed by the values that they require.

use std::collections::HashMap;

use ahash::RandomState;
use http::Method;

use super::conditions::{Conditions, RequestFacts, Source};
use super::methods::Methods;

/// A route with conditions.
struct Entry {
    route: usize,
    methods: Methods,
    conditions: Conditions,
    priority: i32,
}

impl Entry {
    /// The order among the routes that match a request: the highest comes first.
    fn rank(&self) -> (i32, bool) {
        (self.priority, !self.methods.is_any())
    }

    fn matches(&self, method: &Method, facts: &RequestFacts<'_>) -> bool {
        self.methods.matches(method) && self.conditions.mismatch(facts).is_none()
    }

    /// Whether a request may match both with the same rank, or both always match the same requests.
    fn clashes(&self, other: &Self) -> bool {
        let same = self.conditions == other.conditions;
        (same && self.methods == other.methods || self.rank() == other.rank())
            && share_a_method(&self.methods, &other.methods)
            && (same || !self.conditions.excludes(&other.conditions))
    }
}

fn share_a_method(one: &Methods, other: &Methods) -> bool {
    one.is_any() || other.is_any() || one.iter().any(|method| other.matches(method))
}

type Buckets = HashMap<Box<[u8]>, Vec<usize>, RandomState>;

/// The routes with conditions of one path.
#[derive(Default)]
pub(super) struct Conditional {
    entries: Vec<Entry>,
    /// For each name on which routes require one value: their entries by that value. Few paths have several names.
    by_value: Vec<(Source, Buckets)>,
    /// The entries that require no such value.
    others: Vec<usize>,
}

impl Conditional {
    /// Adds a route, and returns the routes that clash with it.
    pub(super) fn insert(
        &mut self,
        (methods, conditions, priority): (&Methods, &Conditions, i32),
        route: usize,
    ) -> Vec<usize> {
        let new = Entry { route, methods: methods.clone(), conditions: conditions.clone(), priority };
        let key = conditions.named.iter().find_map(|one| Some((&one.source, one.only_value()?)));
        let index = self.entries.len();
        // Routes in other buckets of the same name require another value.
        let possible = self.by_value.iter().flat_map(|(source, buckets)| {
            let same_name = key.filter(|(own, _)| *own == source);
            let bucket = same_name.map(|(_, value)| buckets.get(value).into_iter().flatten());
            let all = same_name.is_none().then(|| buckets.values().flatten());
            bucket.into_iter().flatten().chain(all.into_iter().flatten())
        });
        let possible = possible.chain(&self.others).filter_map(|index| self.entries.get(*index));
        let mut clashing: Vec<usize> = possible.filter(|old| old.clashes(&new)).map(|old| old.route).collect();
        clashing.sort_unstable();
        match key {
            None => self.others.push(index),
            Some((source, value)) => {
                let position = self.by_value.iter().position(|(known, _)| known == source);
                let position = position.unwrap_or_else(|| {
                    self.by_value.push((source.clone(), Buckets::default()));
                    self.by_value.len().saturating_sub(1)
                });
                if let Some((_, buckets)) = self.by_value.get_mut(position) {
                    buckets.entry(value.into()).or_default().push(index);
                }
            }
        }
        self.entries.push(new);
        clashing
    }

    /// The route of the highest rank that matches.
    pub(super) fn find(&self, method: &Method, facts: &RequestFacts<'_>) -> Option<usize> {
        let mut best: Option<&Entry> = None;
        let mut consider = |indexes: &[usize]| {
            for entry in indexes.iter().filter_map(|index| self.entries.get(*index)) {
                if best.is_none_or(|best| entry.rank() > best.rank()) && entry.matches(method, facts) {
                    best = Some(entry);
                }
            }
        };
        for (source, buckets) in &self.by_value {
            if let Some(bucket) = source.value(facts).and_then(|value| buckets.get(&*value)) {
                consider(bucket);
            }
        }
        consider(&self.others);
        best.map(|entry| entry.route)
    }

    /// All routes.
    pub(super) fn routes(&self) -> impl Iterator<Item = usize> {
        self.entries.iter().map(|entry| entry.route)
    }
}
