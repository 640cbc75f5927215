//! One request at one backend: what it holds, and what it tells when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::gate::Slot;
use super::outlier::Outcome;
use super::overload::InFlight;
use crate::breaker::Permit;

/// One request in flight at a backend. Dropping it ends the count, settles with the backend's breaker and
/// lets the next one in.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    /// Whether the answer has not begun yet.
    waiting: bool,
    outcome: Option<Outcome>,
    permit: Option<Permit>,
    /// A place behind the pool's gate, and in its adaptive count. They are the request's, not the try's.
    slot: Option<Slot>,
    in_flight: Option<InFlight>,
}

impl Lease {
    /// Counts a request at `endpoint`.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.begin();
        Self { endpoint, waiting: true, outcome: None, permit: None, slot: None, in_flight: None }
    }

    /// Counts a request at `endpoint` that its breaker let pass.
    pub(super) fn with_permit(endpoint: Arc<Endpoint>, permit: Option<Permit>) -> Self {
        let mut lease = Self::new(endpoint);
        lease.permit = permit;
        lease
    }

    pub(super) fn hold(&mut self, slot: Option<Slot>, in_flight: Option<InFlight>) {
        (self.slot, self.in_flight) = (slot, in_flight);
    }

    /// Takes over what `before`, the lease of the request's last try, holds of the pool.
    pub fn inherit(&mut self, before: &mut Self) {
        self.hold(before.slot.take(), before.in_flight.take());
    }

    /// The backend that is working on the request.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Notes how the try ended or, with the answer's header, seems to end; and after what time the answer
    /// began, where it did. What is the client's fault is not noted.
    pub fn record(&mut self, outcome: Outcome, time: Option<Duration>) {
        self.stop_waiting();
        self.outcome = Some(outcome);
        self.endpoint.observed().record(outcome, time);
        if let (Some(in_flight), Some(time)) = (&self.in_flight, time) {
            in_flight.record(time);
        }
    }

    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.endpoint.observed().tally().released();
        }
    }
}

impl Drop for Lease {
    #[expect(clippy::disallowed_methods, reason = "the request ends now")]
    fn drop(&mut self) {
        self.stop_waiting();
        if let (Some(permit), Some(circuit)) = (self.permit.take(), self.endpoint.circuit()) {
            let failed = self.outcome.map(|outcome| outcome != Outcome::Success);
            circuit.settle(permit, failed, Instant::now());
        }
        // Before the slot, which wakes somebody who looks at this count.
        self.endpoint.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Health;

    #[test]
    fn a_lease_counts_until_it_is_dropped() {
        let endpoint = Arc::new(Endpoint::new("127.0.0.1:1".parse().unwrap(), Health::Unknown));
        let mut lease = Lease::new(Arc::clone(&endpoint));
        let second = Lease::new(Arc::clone(&endpoint));
        let counts = || (endpoint.in_flight(), endpoint.observed().tally().waiting());
        assert_eq!(counts(), (2, 2));
        lease.record(Outcome::Success, None);
        lease.record(Outcome::GatewayFailure, None);
        assert_eq!(counts(), (2, 1), "an answer that has begun is in flight and waits no more");
        drop(lease);
        assert_eq!((counts(), second.endpoint().in_flight()), ((1, 1), 1));
        drop(second);
        assert_eq!(counts(), (0, 0));
    }
}
