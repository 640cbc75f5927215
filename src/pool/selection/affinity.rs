//! Picks the backend that session affinity selects.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::pool::endpoint::Endpoint;
use crate::pool::lease::Lease;
use crate::pool::live::Pool;

/// A backend picked by session affinity.
pub struct AffinityPick {
    /// The lease.
    pub lease: Lease,
    /// Whether it has the highest score of all backends, available or not.
    pub first: bool,
}

impl Pool {
    /// Picks the available backend with the highest score. `score` returns `None` for backends that affinity
    /// does not allow. Looks at every backend, so it is only for requests with affinity.
    pub fn pick_by_affinity(
        &self,
        attempted: &[Arc<Endpoint>],
        score: impl Fn(SocketAddr) -> Option<u64>,
    ) -> Option<AffinityPick> {
        let (endpoint, first) = self.preferred(attempted, &score)?;
        let lease = self.admission.lease(&endpoint)?;
        Some(AffinityPick { lease, first })
    }

    /// The backend, and whether it has the highest score of all.
    pub(in crate::pool) fn preferred(
        &self,
        attempted: &[Arc<Endpoint>],
        score: &dyn Fn(SocketAddr) -> Option<u64>,
    ) -> Option<(Arc<Endpoint>, bool)> {
        let mut most = None;
        let mut best: Option<(u64, Arc<Endpoint>)> = None;
        for endpoint in self.candidates() {
            let Some(score) = score(endpoint.address()) else { continue };
            most = most.max(Some(score));
            let fits = endpoint.is_available()
                && self.accepts_traffic(&endpoint)
                && !attempted.iter().any(|attempted| attempted.address() == endpoint.address());
            if fits && best.as_ref().is_none_or(|(highest, _)| score > *highest) {
                best = Some((score, endpoint));
            }
        }
        best.map(|(score, endpoint)| (endpoint, Some(score) == most))
    }
}
