//! `timeout`: timeouts of the requests that pass it, instead of those of the route.

use std::sync::Arc;

use super::config::{Configuration, Surroundings};
use super::{Filter, Request, Step};
use crate::base::fault::{Faults, Place};
use crate::base::timeouts::{Timeouts, TimeoutsConfig};

impl Configuration for TimeoutsConfig {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        if self.is_empty() {
            faults.add(place.clone(), "it sets no timeout", "write for example `timeout: { first_byte: 5m }`");
        }
        Self::check(self, Timeouts::default(), place, faults);
        Some(Arc::new(Timeout(*self)))
    }
}

#[derive(Debug)]
struct Timeout(TimeoutsConfig);

impl Filter for Timeout {
    fn request(&self, request: &mut Request<'_>) -> Step {
        request.changes.timeouts = self.0.or(request.changes.timeouts);
        Step::Continue
    }

    fn describe(&self) -> String {
        words(&self.0)
    }
}

/// The timeouts that are given, in a few words.
#[must_use]
pub fn words(timeouts: &TimeoutsConfig) -> String {
    let given = timeouts.given();
    given.iter().map(|(key, period)| format!("{key} {period}")).collect::<Vec<_>>().join(", ")
}
