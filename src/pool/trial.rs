//! The trial of an ejected backend by one request.

use std::sync::Arc;
use std::time::Instant;

use crate::pool::endpoint::Endpoint;
use crate::pool::passive_health::trials::Verdict;

/// A running trial. Dropped without a result, it can be offered again.
#[derive(Debug)]
pub(in crate::pool) struct Trial {
    endpoint: Arc<Endpoint>,
    ejection: u64,
}

impl Trial {
    /// Takes the trial that `endpoint` offers, if there is one.
    pub(in crate::pool) fn take(endpoint: &Arc<Endpoint>) -> Option<Self> {
        let ejection = endpoint.passive_health().trials().take()?;
        Some(Self { endpoint: Arc::clone(endpoint), ejection })
    }

    /// Ends the trial with a verdict.
    pub(in crate::pool) fn decide(self, verdict: Verdict) {
        self.endpoint.passive_health().decide_trial(self.ejection, verdict);
    }

    /// Ends the trial without a verdict: the request rather than the backend may be the reason.
    pub(in crate::pool) fn pause(self, now: Instant) {
        self.endpoint.passive_health().trials().pause(self.ejection, now);
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // After a result this has no effect.
        self.endpoint.passive_health().trials().give_back(self.ejection);
    }
}
