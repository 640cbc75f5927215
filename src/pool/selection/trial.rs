//! Picks an ejected backend for a trial.

use std::sync::Arc;

use crate::base::backend_address::BackendAddress;
use crate::pool::endpoint::Endpoint;
use crate::pool::lease::Lease;
use crate::pool::live::Pool;
use crate::pool::trial::Trial;

impl Pool {
    /// Whether an ejected backend may offer a trial. One load while there is none.
    #[must_use]
    pub fn may_offer_trial(&self) -> bool {
        self.admission.monitor().trigger().may_offer_trial()
    }

    /// A lease on an ejected backend that passes its health checks again, for a request that has `reserved` another
    /// backend. `suits` limits the backends. The trial takes over the slot of the request.
    pub fn take_trial(&self, reserved: &mut Lease, suits: impl Fn(BackendAddress) -> bool) -> Option<Lease> {
        let trigger = self.admission.monitor().trigger();
        // Cleared first, so that an offer during the search is not lost.
        trigger.set_trial_hint(false);
        let may_backup = reserved.endpoint().is_backup();
        let mut lease = None;
        for endpoint in self.candidates() {
            if !endpoint.passive_health().trials().is_offered() {
                continue;
            }
            let suitable = lease.is_none()
                && endpoint.is_available()
                && (may_backup || !endpoint.is_backup())
                && suits(endpoint.address())
                && self.admission.allow(&endpoint);
            lease = lease.or_else(|| if suitable { self.lease_for_trial(&endpoint) } else { None });
            if endpoint.passive_health().trials().is_offered() {
                trigger.set_trial_hint(true);
            }
        }
        if let Some(lease) = &mut lease {
            lease.take_over(reserved);
        }
        lease
    }

    fn lease_for_trial(&self, endpoint: &Arc<Endpoint>) -> Option<Lease> {
        let trial = Trial::take(endpoint)?;
        let mut lease = self.admission.lease(endpoint)?;
        lease.try_backend(trial);
        Some(lease)
    }
}
