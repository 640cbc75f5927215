//! State that filters share while a snapshot is built: counts of limits, and keys of tokens at URLs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::limits::Limits;
use super::token::Remote;
use crate::base::units::RouteName;
use crate::limit;

/// The state of the filters of a snapshot and of the previous one.
pub struct SharedState {
    now: Instant,
    limits: HashMap<String, Arc<Limits>>,
    keys: Vec<Arc<Remote>>,
    routes: HashSet<RouteName>,
}

impl SharedState {
    /// No state, for a snapshot with these routes. New windows start at `now`.
    #[must_use]
    pub fn new(now: Instant, routes: HashSet<RouteName>) -> Self {
        Self { now, limits: HashMap::new(), keys: Vec::new(), routes }
    }

    /// Whether the snapshot has a route of this name.
    pub(super) fn has_route(&self, name: &RouteName) -> bool {
        self.routes.contains(name)
    }

    /// The limits of a filter: those of the same name, if they are equal, otherwise new ones.
    pub(super) fn limits(&self, name: Option<&str>, specs: &[limit::Spec]) -> Arc<Limits> {
        let same = name.and_then(|name| self.limits.get(name)).filter(|limits| limits.has(specs));
        same.map_or_else(|| Arc::new(Limits::new(specs, self.now)), Arc::clone)
    }

    /// Keeps limits for other filters of the same name.
    pub(super) fn remember(&mut self, name: &str, limits: &Arc<Limits>) {
        self.limits.insert(name.to_owned(), Arc::clone(limits));
    }

    /// The keys that are fetched as `keys` are, or these.
    pub(super) fn keys(&mut self, keys: &Arc<Remote>) -> Arc<Remote> {
        if let Some(same) = self.keys.iter().find(|known| known.is_same(keys)) {
            return Arc::clone(same);
        }
        self.keys.push(Arc::clone(keys));
        Arc::clone(keys)
    }
}
