//! One request at one backend: what it holds, and what it tells when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pool::admission::breaker::Permit;
use crate::pool::admission::circuit::Circuit;
use crate::pool::admission::gate::Slot;
use crate::pool::admission::overload::InFlight;
use crate::pool::endpoint::Endpoint;
use crate::pool::passive_health::Outcome;

/// One request in flight at a backend. Dropping it ends the count, settles with the backend's breaker and
/// lets the next one in.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    /// Since when the backend owes an answer: it has the whole request, and has not begun.
    waits_since: Option<Instant>,
    outcome: Option<Outcome>,
    /// Whether its success was counted before its end.
    settled: bool,
    permit: Option<(Arc<Circuit>, Permit)>,
    /// A place behind the pool's gate, and in its adaptive count. They are the request's, not the try's.
    slot: Option<Slot>,
    in_flight: Option<InFlight>,
}

impl Lease {
    /// Counts a request at `endpoint`.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.begin();
        Self { endpoint, waits_since: None, outcome: None, settled: false, permit: None, slot: None, in_flight: None }
    }

    /// Counts a request at `endpoint` that its breaker let pass.
    pub(in crate::pool) fn with_permit(endpoint: Arc<Endpoint>, permit: Option<(Arc<Circuit>, Permit)>) -> Self {
        let mut lease = Self::new(endpoint);
        lease.permit = permit;
        lease
    }

    pub(in crate::pool) fn hold(&mut self, slot: Option<Slot>, in_flight: Option<InFlight>) {
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

    /// The backend owes an answer: it has had the whole request since `since`. Uploads take as long as
    /// their clients, which says nothing about a backend.
    pub fn await_answer(&mut self, since: Instant) {
        if self.waits_since.is_none() && self.outcome.is_none() {
            self.waits_since = Some(since);
            self.endpoint.begin_waiting(since);
        }
    }

    /// The answer has begun, and this is how the try seems to end. That it ends well is known at its end.
    pub fn answered(&mut self, outcome: Outcome, now: Instant) {
        let time = self.stop_waiting(now);
        self.outcome = Some(outcome);
        match outcome {
            Outcome::Success => self.endpoint.begins_to_answer(time, now),
            failure => self.endpoint.record(failure, time, now),
        }
        if let (Some(in_flight), Some(time)) = (&self.in_flight, time) {
            in_flight.record(time);
        }
    }

    /// The try has failed without an answer, by the backend's fault.
    pub fn failed(&mut self, now: Instant) {
        if let Some(waited) = self.stop_waiting(now) {
            self.endpoint.waited_in_vain(waited, now);
        }
        self.outcome = Some(Outcome::GatewayFailure);
        self.endpoint.record(Outcome::GatewayFailure, None, now);
    }

    /// An answer that seemed well has turned out otherwise, by the backend's fault: it broke off, or its
    /// trailers say so.
    pub fn turned_out(&mut self, failure: Outcome, now: Instant) {
        if self.outcome == Some(Outcome::Success) && failure != Outcome::Success && !self.settled {
            self.outcome = Some(failure);
            self.endpoint.record(failure, None, now);
        }
    }

    /// The answer switched protocols, and so is whole: what follows is a conversation, that may last for days
    /// and end anyhow.
    pub fn switched(&mut self, now: Instant) {
        self.settle(|| now);
    }

    /// Tells the backend's judges how it ended, once.
    fn settle(&mut self, now: impl FnOnce() -> Instant) {
        if self.outcome == Some(Outcome::Success) && !std::mem::replace(&mut self.settled, true) {
            self.endpoint.observed().record(Outcome::Success);
        }
        if let Some((circuit, permit)) = self.permit.take() {
            let failed = self.outcome.map(|outcome| outcome != Outcome::Success);
            if circuit.settle(permit, failed, now()) {
                self.endpoint.changed();
            }
        }
    }

    /// How long it was, where the backend owed an answer.
    fn stop_waiting(&mut self, now: Instant) -> Option<Duration> {
        let since = self.waits_since.take()?;
        self.endpoint.end_waiting();
        Some(now.saturating_duration_since(since))
    }
}

impl Drop for Lease {
    #[expect(clippy::disallowed_methods, reason = "the request ends now")]
    fn drop(&mut self) {
        if self.waits_since.is_some() {
            // Nobody told how it ended, so the client has gone.
            let now = Instant::now();
            if let Some(waited) = self.stop_waiting(now) {
                self.endpoint.waited_in_vain(waited, now);
            }
        }
        self.settle(Instant::now);
        // Before the slot, which wakes somebody who looks at this count.
        self.endpoint.end();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

    use super::*;
    use crate::base::fault::{Faults, Place};
    use crate::pool::endpoint::{Shared, Standing};
    use crate::pool::passive_health::monitor::Alarm as OutlierMonitor;
    use crate::pool::passive_health::{Setting, Share};

    fn endpoint(now: Instant) -> Arc<Endpoint> {
        let address = "127.0.0.1:1".parse().unwrap();
        Arc::new(Endpoint::new(address, Standing::default(), Shared::default(), now))
    }

    #[test]
    fn a_lease_counts_until_it_is_dropped() {
        let now = Instant::now();
        let endpoint = endpoint(now);
        let mut lease = Lease::new(Arc::clone(&endpoint));
        let mut second = Lease::new(Arc::clone(&endpoint));
        let counts = || (endpoint.in_flight(), endpoint.observed().tally().waiting());
        assert_eq!(counts(), (2, 0), "nothing is owed for half a request");
        lease.await_answer(now);
        second.await_answer(now);
        second.await_answer(now);
        assert_eq!(counts(), (2, 2));
        lease.answered(Outcome::Success, now);
        lease.failed(now);
        lease.await_answer(now);
        assert_eq!(counts(), (2, 1), "an answer that has begun is in flight and waits no more");
        drop(lease);
        assert_eq!((counts(), second.endpoint().in_flight()), ((1, 1), 1));
        drop(second);
        assert_eq!(counts(), (0, 0));
    }

    /// A backend whose failures in a row are counted.
    fn judged(now: Instant) -> Arc<Endpoint> {
        let mut shared = Shared::default();
        let spec = Setting::default().check(&Place::root(), &mut Faults::default()).unwrap();
        let monitor = OutlierMonitor::default();
        monitor.follow(Some(&spec), &[], now);
        shared.trigger = Arc::clone(monitor.trigger());
        let address = "127.0.0.1:1".parse().unwrap();
        Arc::new(Endpoint::new(address, Standing::default(), shared, now))
    }

    #[test]
    fn an_answer_counts_by_how_it_ended() {
        let now = Instant::now();
        let endpoint = judged(now);
        let rows = || endpoint.observed().tally().rows();
        let answered = |outcome| {
            let mut lease = Lease::new(Arc::clone(&endpoint));
            lease.await_answer(now);
            lease.answered(outcome, now);
            lease
        };
        for row in 1..=3 {
            let mut lease = answered(Outcome::Success);
            assert_eq!(rows(), (row - 1, row - 1), "an answer that has begun is no success yet");
            lease.turned_out(Outcome::GatewayFailure, now);
            lease.turned_out(Outcome::ServerError, now);
            drop(lease);
            assert_eq!(rows(), (row, row), "once");
        }
        let mut failed = answered(Outcome::ServerError);
        failed.turned_out(Outcome::GatewayFailure, now);
        drop(failed);
        assert_eq!(rows(), (0, 4), "a failure is one already");
        drop(answered(Outcome::Success));
        assert_eq!(rows(), (0, 0));
        assert_eq!(endpoint.observed().tally().take().0, Share { succeeded: 1, failed: 4 });
    }

    #[test]
    fn a_switch_of_protocols_is_a_success_when_it_happens() {
        let now = Instant::now();
        let endpoint = judged(now);
        endpoint.record(Outcome::GatewayFailure, None, now);
        let mut lease = Lease::new(Arc::clone(&endpoint));
        lease.await_answer(now);
        lease.answered(Outcome::Success, now);
        lease.switched(now);
        assert_eq!(endpoint.observed().tally().rows(), (0, 0), "it ends the row of failures");
        lease.turned_out(Outcome::GatewayFailure, now);
        drop(lease);
        assert_eq!(endpoint.observed().tally().rows(), (0, 0), "how the conversation ends is nobody's failure");
        assert_eq!(endpoint.observed().tally().take().0, Share { succeeded: 1, failed: 1 });
    }

    #[test]
    fn silence_is_a_time_as_long_as_somebody_waits_for_it() {
        let born = Instant::now();
        let endpoint = endpoint(born);
        let at = |millis: u64| born + Duration::from_millis(millis);
        let waiting = |since| {
            let mut lease = Lease::new(Arc::clone(&endpoint));
            lease.await_answer(at(since));
            lease
        };
        let mut first = waiting(0);
        assert_eq!(endpoint.latency(at(500)), Duration::ZERO, "not one answer is no measurement");
        first.answered(Outcome::Success, at(2));
        assert!(endpoint.latency(at(500)) < Duration::from_millis(3));
        let mut second = waiting(500);
        assert_eq!(endpoint.latency(at(900)), Duration::from_millis(400), "who waits longest has waited so long");
        let third = waiting(800);
        second.answered(Outcome::Success, at(1000));
        assert!(endpoint.latency(at(1000)) > Duration::from_millis(450), "a peak");
        assert_eq!(endpoint.latency(at(3000)), Duration::from_secs(2), "since the last answer");
        drop(third);
    }

    #[test]
    fn who_gave_up_waiting_leaves_the_time_as_a_peak() {
        let now = Instant::now();
        let endpoint = endpoint(now);
        endpoint.begins_to_answer(Some(Duration::from_millis(5)), now);
        endpoint.waited_in_vain(Duration::from_millis(1), now);
        assert!(endpoint.latency(now) > Duration::from_millis(4), "a short visit is no praise");
        endpoint.waited_in_vain(Duration::from_secs(3), now);
        assert_eq!(endpoint.latency(now), Duration::from_secs(3));
    }
}
