//! Picking the backend that somebody would rather have, where it may be had.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::pool::endpoint::Endpoint;
use crate::pool::lease::Lease;
use crate::pool::live::Pool;

/// A backend that was picked by preference.
pub struct Preferred {
    /// The request's place at it.
    pub lease: Lease,
    /// Whether it is the one that was wanted most, available or not.
    pub first: bool,
}

impl Pool {
    /// Picks of the backends that are wanted (a score) and may take the request the one with the highest
    /// score. Looks at every backend, so it is for those who ask for it.
    pub fn pick_preferred(
        &self,
        tried: &[Arc<Endpoint>],
        score: impl Fn(SocketAddr) -> Option<u64>,
    ) -> Option<Preferred> {
        let (endpoint, first) = self.preferred(tried, &score)?;
        let lease = self.bounds.lease(&endpoint)?;
        Some(Preferred { lease, first })
    }

    /// Which one that is, and whether it is the one that is wanted most.
    pub(in crate::pool) fn preferred(
        &self,
        tried: &[Arc<Endpoint>],
        score: &dyn Fn(SocketAddr) -> Option<u64>,
    ) -> Option<(Arc<Endpoint>, bool)> {
        let mut most = None;
        let mut best: Option<(u64, Arc<Endpoint>)> = None;
        for endpoint in self.candidates() {
            let Some(score) = score(endpoint.address()) else { continue };
            most = most.max(Some(score));
            let fits = endpoint.is_available()
                && self.is_well(&endpoint)
                && !tried.iter().any(|tried| tried.address() == endpoint.address());
            if fits && best.as_ref().is_none_or(|(highest, _)| score > *highest) {
                best = Some((score, endpoint));
            }
        }
        best.map(|(score, endpoint)| (endpoint, Some(score) == most))
    }
}
