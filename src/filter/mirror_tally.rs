//! What happened to the copies of requests: counts for each route.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::comparison::Comparison;
use crate::base::units::RouteName;

/// Why a selected request is not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// There are as many copies as `max_concurrent` allows.
    TooMany,
    /// Its body is larger than `body`.
    BodyTooLarge,
    /// Its body did not arrive completely.
    BodyIncomplete,
}

/// How a copy that was sent has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response arrived.
    Response {
        /// Its status code.
        status: u16,
        /// Whether its body arrived completely.
        complete: bool,
    },
    /// None arrived, for this cause.
    Failure(&'static str),
}

/// The counts of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Copies that were sent.
    pub sent: u64,
    /// Requests that were not copied, because there were too many copies.
    pub too_many: u64,
    /// Requests that were not copied, because their body is too large.
    pub body_too_large: u64,
    /// Requests that were not copied, because their body did not arrive completely.
    pub body_incomplete: u64,
    /// Responses to copies by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Responses whose body did not arrive completely.
    pub incomplete: u64,
    /// Copies without a response, by cause.
    pub failures: BTreeMap<&'static str, u64>,
}

/// What happened to the copies of one route.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<Counts>,
    /// The comparison with the responses to clients, if the filter compares.
    comparison: Option<Mutex<Comparison>>,
}

impl Tally {
    /// A tally with a comparison.
    #[must_use]
    pub fn comparing() -> Self {
        Self { comparison: Some(Mutex::default()), ..Self::default() }
    }

    /// Whether it has a comparison.
    #[must_use]
    pub const fn compares(&self) -> bool {
        self.comparison.is_some()
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.lock().clone()
    }

    /// The comparison so far.
    #[must_use]
    pub fn comparison(&self) -> Option<Comparison> {
        Some(self.comparison.as_ref()?.lock().clone())
    }

    /// Changes the comparison, if there is one.
    pub(super) fn compare<T>(&self, change: impl FnOnce(&mut Comparison) -> T) -> Option<T> {
        Some(change(&mut self.comparison.as_ref()?.lock()))
    }

    pub(super) fn dropped(&self, reason: Dropped) {
        let mut counts = self.counts.lock();
        let count = match reason {
            Dropped::TooMany => &mut counts.too_many,
            Dropped::BodyTooLarge => &mut counts.body_too_large,
            Dropped::BodyIncomplete => &mut counts.body_incomplete,
        };
        *count = count.saturating_add(1);
    }

    pub(super) fn sent(&self) {
        let mut counts = self.counts.lock();
        counts.sent = counts.sent.saturating_add(1);
    }

    pub(super) fn ended(&self, outcome: Outcome) {
        let mut counts = self.counts.lock();
        let count = match outcome {
            Outcome::Response { status, complete } => {
                counts.incomplete = counts.incomplete.saturating_add(u64::from(!complete));
                counts.statuses.entry(status).or_default()
            }
            Outcome::Failure(cause) => counts.failures.entry(cause).or_default(),
        };
        *count = count.saturating_add(1);
    }
}

/// The tallies of the routes whose requests pass a filter.
#[derive(Debug)]
pub struct Tallies {
    routes: Mutex<HashMap<RouteName, Arc<Tally>>>,
    compares: bool,
}

impl Tallies {
    /// No tallies. New ones have a comparison if `compares`.
    #[must_use]
    pub fn new(compares: bool) -> Self {
        Self { routes: Mutex::default(), compares }
    }

    /// Whether they have comparisons.
    #[must_use]
    pub const fn compares(&self) -> bool {
        self.compares
    }

    /// The tally of a route.
    #[must_use]
    pub fn of(&self, route: &str) -> Arc<Tally> {
        let new = || Arc::new(if self.compares { Tally::comparing() } else { Tally::default() });
        Arc::clone(self.routes.lock().entry(RouteName::from(route)).or_insert_with(new))
    }

    /// All tallies, by route.
    #[must_use]
    pub fn all(&self) -> Vec<(RouteName, Arc<Tally>)> {
        let mut all: Vec<_> =
            self.routes.lock().iter().map(|(route, tally)| (route.clone(), Arc::clone(tally))).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// Forgets the routes that `is_kept` excludes.
    pub fn keep(&self, is_kept: impl Fn(&RouteName) -> bool) {
        self.routes.lock().retain(|route, _| is_kept(route));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_a_copy_has_its_count() {
        let tally = Tally::default();
        for reason in [Dropped::TooMany, Dropped::BodyTooLarge, Dropped::BodyTooLarge, Dropped::BodyIncomplete] {
            tally.dropped(reason);
        }
        for outcome in [
            Outcome::Response { status: 200, complete: true },
            Outcome::Response { status: 200, complete: false },
            Outcome::Response { status: 500, complete: true },
            Outcome::Failure("connect_failed"),
        ] {
            tally.sent();
            tally.ended(outcome);
        }
        let wanted = Counts {
            sent: 4,
            too_many: 1,
            body_too_large: 2,
            body_incomplete: 1,
            statuses: BTreeMap::from([(200, 2), (500, 1)]),
            incomplete: 1,
            failures: BTreeMap::from([("connect_failed", 1)]),
        };
        assert_eq!(tally.counts(), wanted);
    }
}
