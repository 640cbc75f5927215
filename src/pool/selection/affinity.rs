//! Picks the backend that session affinity selects.

use std::sync::Arc;

use crate::base::backend_address::BackendAddress;
use crate::pool::endpoint::Endpoint;
use crate::pool::lease::Lease;
use crate::pool::live::Pool;

/// A backend picked by session affinity.
pub struct AffinityPick {
    /// The lease.
    pub lease: Lease,
    /// Whether no unavailable backend has a higher score.
    pub is_first_choice: bool,
}

impl Pool {
    /// Picks the available backend with the highest score. `score` returns `None` for backends that affinity
    /// does not allow. It examines every backend, so use it only for requests with affinity.
    pub fn pick_by_affinity(
        &self,
        attempted: &[Arc<Endpoint>],
        score: impl Fn(BackendAddress) -> Option<u64>,
    ) -> Option<AffinityPick> {
        let (endpoint, is_first_choice) = self.affinity_target(attempted, &score)?;
        let lease = self.admission.lease(&endpoint)?;
        Some(AffinityPick { lease, is_first_choice })
    }

    /// The available backend with the highest score, and whether no unavailable backend has a higher one.
    pub(in crate::pool) fn affinity_target(
        &self,
        attempted: &[Arc<Endpoint>],
        score: &dyn Fn(BackendAddress) -> Option<u64>,
    ) -> Option<(Arc<Endpoint>, bool)> {
        // Looks at all of them without a copy: there may be thousands.
        self.discovery.with_attached(|backends| {
            let mut highest_of_all = None;
            let mut best: Option<(u64, &Arc<Endpoint>)> = None;
            for endpoint in backends.filter(|endpoint| endpoint.weight() > 0) {
                let Some(score) = score(endpoint.address()) else { continue };
                highest_of_all = highest_of_all.max(Some(score));
                let accepts = best.is_none_or(|(highest, _)| score > highest)
                    && endpoint.is_available()
                    && self.accepts_traffic(endpoint)
                    && !attempted.iter().any(|attempted| attempted.address() == endpoint.address());
                if accepts {
                    best = Some((score, endpoint));
                }
            }
            best.map(|(score, endpoint)| (Arc::clone(endpoint), Some(score) == highest_of_all))
        })
    }
}
