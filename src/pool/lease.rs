//! One attempt: counts a request in flight at a backend, and records the outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pool::admission::breaker::Permit;
use crate::pool::admission::circuit::Circuit;
use crate::pool::admission::gate::Slot;
use crate::pool::admission::overload::InFlight;
use crate::pool::endpoint::Endpoint;
use crate::pool::passive_health::Outcome;
use crate::pool::passive_health::trials::Verdict;
use crate::pool::trial::Trial;

/// How long a response lasts, at least, to count as a success even if it breaks off later. Before, a break shows that
/// the good start was none.
const SUCCESS_AFTER: Duration = Duration::from_secs(10);

/// The success of a response that has started well and may still break off.
#[derive(Clone, Copy, Debug)]
struct Success {
    at: Instant,
    /// What passive health needs to remove it.
    begun: Option<(u32, u32)>,
}

/// One request in flight at a backend. When it is dropped, the request is no longer counted, and the next queued request is admitted.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    /// When the wait for a response began, while it lasts: the backend has the whole request, and the response
    /// has not started.
    waiting_since: Option<Instant>,
    outcome: Option<Outcome>,
    /// Its success, while the response may still break off.
    success: Option<Success>,
    /// The trial, if the backend is ejected and this request tries it.
    trial: Option<Trial>,
    /// The trial of the previous attempt, if it failed with a status that the request may have caused.
    unconfirmed: Option<Trial>,
    permit: Option<(Arc<Circuit>, Permit)>,
    /// Whether the circuit breaker has the outcome.
    settled: bool,
    /// Its slot in the gate, and its count in the adaptive limit. Both belong to the request, so a retry takes
    /// them over.
    slot: Option<Slot>,
    in_flight: Option<InFlight>,
}

impl Lease {
    /// Counts a request at `endpoint`.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.begin();
        Self {
            endpoint,
            waiting_since: None,
            outcome: None,
            success: None,
            trial: None,
            unconfirmed: None,
            permit: None,
            settled: false,
            slot: None,
            in_flight: None,
        }
    }

    /// Counts a request at `endpoint` that its circuit breaker admitted.
    pub(in crate::pool) fn with_permit(endpoint: Arc<Endpoint>, permit: Option<(Arc<Circuit>, Permit)>) -> Self {
        let mut lease = Self::new(endpoint);
        lease.permit = permit;
        lease
    }

    pub(in crate::pool) fn hold(&mut self, slot: Option<Slot>, in_flight: Option<InFlight>) {
        (self.slot, self.in_flight) = (slot, in_flight);
    }

    /// Makes the request a trial of the ejected backend.
    pub(in crate::pool) fn try_backend(&mut self, trial: Trial) {
        self.trial = Some(trial);
    }

    /// Ends the trial, if it is one, without a verdict: the time that a response takes depends on the request.
    pub fn pause_trial(&mut self, now: Instant) {
        if let Some(trial) = self.trial.take() {
            trial.pause(now);
        }
    }

    /// Takes over the slot and the count from `before`, the lease of the previous attempt. If that was a trial that
    /// failed with a server error, this attempt shows whether the request was at fault.
    pub fn take_over(&mut self, before: &mut Self) {
        if before.outcome == Some(Outcome::ServerError) {
            self.unconfirmed = before.trial.take();
        }
        self.hold(before.slot.take(), before.in_flight.take());
    }

    /// The backend of the attempt.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Begins the wait for the response: the backend has had the whole request since `since`. The duration of an
    /// upload depends on the client, so it is not part of the latency.
    pub fn await_response(&mut self, since: Instant) {
        if self.waiting_since.is_none() && self.outcome.is_none() {
            self.waiting_since = Some(since);
            self.endpoint.begin_waiting(since);
        }
    }

    /// Records the start of the response and its outcome so far. A success counts from now on, because a stream may
    /// last for days.
    pub fn response_started(&mut self, outcome: Outcome, now: Instant) {
        let time = self.stop_waiting(now);
        self.outcome = Some(outcome);
        self.judge_trials(outcome, now);
        match outcome {
            Outcome::Success => {
                self.endpoint.record_response_start(time, now);
                self.success = Some(Success { at: now, begun: self.endpoint.passive_health().begin_success() });
            }
            failure => self.endpoint.record(failure, time, now),
        }
        if let (Some(in_flight), Some(time)) = (&self.in_flight, time) {
            in_flight.record(time);
        }
        self.settle(|| now);
    }

    /// Records that the attempt failed without a response, because of the backend.
    pub fn failed(&mut self, now: Instant) {
        if let Some(waited) = self.stop_waiting(now) {
            self.endpoint.record_abandoned_wait(waited, now);
        }
        self.outcome = Some(Outcome::GatewayFailure);
        self.judge_trials(Outcome::GatewayFailure, now);
        self.endpoint.record(Outcome::GatewayFailure, None, now);
        self.settle(|| now);
    }

    /// Records that a response failed after its start, because of the backend: it was truncated, or its
    /// trailers report an error. `stalled` is the time without progress until now.
    pub fn response_failed(&mut self, failure: Outcome, stalled: Duration, now: Instant) {
        if failure == Outcome::Success {
            return;
        }
        let Some(success) = self.success.take() else { return };
        let corrects = now.saturating_duration_since(success.at).saturating_sub(stalled) < SUCCESS_AFTER;
        if corrects {
            self.endpoint.passive_health().retract_success(success.begun);
        }
        self.outcome = Some(failure);
        self.judge_trials(Outcome::GatewayFailure, now);
        self.endpoint.record(failure, None, now);
        if let Some((circuit, permit)) = &self.permit
            && circuit.broke_off(*permit, corrects, now)
        {
            self.endpoint.notify_change();
        }
    }

    /// Decides trials by the outcome of this attempt. A trial passes only at the end of its response, and fails with a
    /// server error only if another backend gives a good response.
    fn judge_trials(&mut self, outcome: Outcome, now: Instant) {
        if outcome == Outcome::GatewayFailure
            && let Some(trial) = self.trial.take()
        {
            trial.decide(Verdict::Failed);
        }
        if let Some(trial) = self.unconfirmed.take() {
            match outcome {
                Outcome::Success => trial.decide(Verdict::Failed),
                _ => trial.pause(now),
            }
        }
    }

    /// Records a protocol switch, which ends the response. The end of the tunnel does not indicate a failure of the
    /// backend.
    pub fn protocol_switched(&mut self) {
        self.success = None;
    }

    /// Reports the outcome to the circuit breaker, once.
    fn settle(&mut self, now: impl FnOnce() -> Instant) {
        if let Some((circuit, permit)) = &self.permit
            && !std::mem::replace(&mut self.settled, true)
        {
            let failed = self.outcome.map(|outcome| outcome != Outcome::Success);
            if circuit.settle(*permit, failed, now()) {
                self.endpoint.notify_change();
            }
        }
    }

    /// Ends the wait for the response and returns its duration.
    fn stop_waiting(&mut self, now: Instant) -> Option<Duration> {
        let since = self.waiting_since.take()?;
        self.endpoint.end_waiting();
        Some(now.saturating_duration_since(since))
    }
}

impl Drop for Lease {
    #[expect(clippy::disallowed_methods, reason = "the request ends now")]
    fn drop(&mut self) {
        if self.waiting_since.is_some() {
            // No outcome was recorded, so the client has closed the connection.
            let now = Instant::now();
            if let Some(waited) = self.stop_waiting(now) {
                self.endpoint.record_abandoned_wait(waited, now);
            }
        }
        self.settle(Instant::now);
        if self.outcome == Some(Outcome::Success)
            && let Some(trial) = self.trial.take()
        {
            trial.decide(Verdict::Passed);
        }
        // This must precede the release of the slot, which wakes a queued request that reads this count.
        self.endpoint.end();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests take the current time as the start of their own clock")]

    use super::*;
    use crate::base::fault::{Faults, Place};
    use crate::pool::endpoint::{BackendSettings, PoolShared};
    use crate::pool::passive_health::monitor::OutlierMonitor;
    use crate::pool::passive_health::{Setting, Share};

    fn endpoint(now: Instant) -> Arc<Endpoint> {
        let address = "127.0.0.1:1".parse().unwrap();
        Arc::new(Endpoint::new(address, BackendSettings::default(), PoolShared::default(), now))
    }

    #[test]
    fn lease_counts_a_request_until_it_is_dropped() {
        let now = Instant::now();
        let endpoint = endpoint(now);
        let mut lease = Lease::new(Arc::clone(&endpoint));
        let mut second = Lease::new(Arc::clone(&endpoint));
        let counts = || (endpoint.in_flight(), endpoint.passive_health().tally().waiting());
        assert_eq!(counts(), (2, 0), "an incomplete request does not wait for a response");
        lease.await_response(now);
        second.await_response(now);
        second.await_response(now);
        assert_eq!(counts(), (2, 2));
        lease.response_started(Outcome::Success, now);
        lease.failed(now);
        lease.await_response(now);
        assert_eq!(counts(), (2, 1), "a started response is in flight but no longer waiting");
        drop(lease);
        assert_eq!((counts(), second.endpoint().in_flight()), ((1, 1), 1));
        drop(second);
        assert_eq!(counts(), (0, 0));
    }

    /// A backend whose consecutive failures are counted.
    fn monitored_endpoint(now: Instant) -> Arc<Endpoint> {
        let mut shared = PoolShared::default();
        let spec = Setting::default().check(&Place::root(), &mut Faults::default()).unwrap();
        let monitor = OutlierMonitor::default();
        monitor.reconfigure(Some(&spec), &[], now);
        shared.trigger = Arc::clone(monitor.trigger());
        let address = "127.0.0.1:1".parse().unwrap();
        Arc::new(Endpoint::new(address, BackendSettings::default(), shared, now))
    }

    #[test]
    fn response_counts_as_success_at_its_start_and_as_failure_if_it_breaks_off() {
        let now = Instant::now();
        let endpoint = monitored_endpoint(now);
        let consecutive = || endpoint.passive_health().tally().consecutive_failures();
        let started = |outcome| {
            let mut lease = Lease::new(Arc::clone(&endpoint));
            lease.await_response(now);
            lease.response_started(outcome, now);
            lease
        };
        for count in 1..=3 {
            let mut lease = started(Outcome::Success);
            assert_eq!(consecutive(), (0, 0), "a good start counts");
            lease.response_failed(Outcome::GatewayFailure, Duration::ZERO, now);
            lease.response_failed(Outcome::ServerError, Duration::ZERO, now);
            drop(lease);
            assert_eq!(consecutive(), (count, count), "an early break continues the failures before, and counts once");
        }
        let mut failed = started(Outcome::ServerError);
        failed.response_failed(Outcome::GatewayFailure, Duration::ZERO, now);
        drop(failed);
        assert_eq!(consecutive(), (0, 4), "a failure is counted immediately");
        let mut stream = started(Outcome::Success);
        assert_eq!(endpoint.passive_health().tally().take().0, Share { succeeded: 1, failed: 4 });
        stream.response_failed(Outcome::GatewayFailure, Duration::ZERO, now + SUCCESS_AFTER);
        assert_eq!(consecutive(), (1, 1), "a stream that breaks off late was a success before");
        let mut stalls = started(Outcome::Success);
        stalls.response_failed(Outcome::GatewayFailure, SUCCESS_AFTER, now + SUCCESS_AFTER);
        assert_eq!(consecutive(), (2, 2), "the time without progress does not count");
    }

    #[test]
    fn protocol_switch_counts_as_success_immediately() {
        let now = Instant::now();
        let endpoint = monitored_endpoint(now);
        endpoint.record(Outcome::GatewayFailure, None, now);
        let mut lease = Lease::new(Arc::clone(&endpoint));
        lease.await_response(now);
        lease.response_started(Outcome::Success, now);
        lease.protocol_switched();
        assert_eq!(
            endpoint.passive_health().tally().consecutive_failures(),
            (0, 0),
            "it resets the consecutive failures"
        );
        lease.response_failed(Outcome::GatewayFailure, Duration::ZERO, now);
        drop(lease);
        assert_eq!(
            endpoint.passive_health().tally().consecutive_failures(),
            (0, 0),
            "the end of the tunnel does not count"
        );
        assert_eq!(endpoint.passive_health().tally().take().0, Share { succeeded: 1, failed: 1 });
    }

    /// A trial of an ejected backend whose response has this outcome, and the lease of the retry.
    fn trial(outcome: Outcome, now: Instant) -> (Arc<Endpoint>, Lease, Lease) {
        let ejected = endpoint(now);
        ejected.passive_health().eject(false, now + Duration::from_secs(60));
        ejected.passive_health().set_trials(Some((now, Duration::from_secs(10))));
        ejected.passive_health().offer_trial(now);
        let mut lease = Lease::new(Arc::clone(&ejected));
        lease.try_backend(Trial::take(&ejected).unwrap());
        lease.response_started(outcome, now);
        (ejected, lease, Lease::new(endpoint(now)))
    }

    #[test]
    fn trial_passes_only_at_the_end_of_a_good_response() {
        let now = Instant::now();
        let (ejected, lease, _) = trial(Outcome::Success, now);
        assert_eq!(ejected.passive_health().verdict(), None);
        drop(lease);
        assert_eq!(ejected.passive_health().verdict(), Some(Verdict::Passed));
        let (ejected, mut lease, _) = trial(Outcome::Success, now);
        lease.response_failed(Outcome::GatewayFailure, Duration::ZERO, now);
        drop(lease);
        assert_eq!(ejected.passive_health().verdict(), Some(Verdict::Failed), "it was truncated");
    }

    #[test]
    fn trial_fails_with_a_server_error_only_if_another_backend_gives_a_good_response() {
        let now = Instant::now();
        for (of_retry, verdict) in [(Outcome::Success, Some(Verdict::Failed)), (Outcome::ServerError, None)] {
            let (ejected, mut lease, mut retry) = trial(Outcome::ServerError, now);
            retry.take_over(&mut lease);
            drop(lease);
            retry.response_started(of_retry, now);
            assert_eq!(ejected.passive_health().verdict(), verdict);
            ejected.passive_health().offer_trial(now);
            assert!(!ejected.passive_health().trials().is_offered(), "the next one follows after a pause");
        }
    }

    #[test]
    fn trial_that_times_out_decides_nothing() {
        let now = Instant::now();
        let (ejected, mut lease, _) = trial(Outcome::ServerError, now);
        lease.pause_trial(now);
        lease.failed(now);
        drop(lease);
        assert_eq!(ejected.passive_health().verdict(), None);
        ejected.passive_health().offer_trial(now + Duration::from_secs(10));
        assert!(ejected.passive_health().trials().is_offered());
    }

    #[test]
    fn latency_grows_while_requests_wait_without_a_response() {
        let start = Instant::now();
        let endpoint = endpoint(start);
        let at = |millis: u64| start + Duration::from_millis(millis);
        let waiting = |since| {
            let mut lease = Lease::new(Arc::clone(&endpoint));
            lease.await_response(at(since));
            lease
        };
        let mut first = waiting(0);
        assert_eq!(endpoint.latency(at(500)), Duration::ZERO, "there is no measurement before the first response");
        first.response_started(Outcome::Success, at(2));
        assert!(endpoint.latency(at(500)) < Duration::from_millis(3));
        let mut second = waiting(500);
        assert_eq!(endpoint.latency(at(900)), Duration::from_millis(400), "the longest wait counts");
        let third = waiting(800);
        second.response_started(Outcome::Success, at(1000));
        assert!(endpoint.latency(at(1000)) > Duration::from_millis(150), "the wait raises the average");
        assert_eq!(endpoint.latency(at(3000)), Duration::from_secs(2), "the time since the last response counts");
        drop(third);
    }

    #[test]
    fn abandoned_wait_raises_the_latency() {
        let now = Instant::now();
        let endpoint = endpoint(now);
        endpoint.record_response_start(Some(Duration::from_millis(5)), now);
        endpoint.record_abandoned_wait(Duration::from_millis(1), now);
        assert!(endpoint.latency(now) > Duration::from_millis(4), "a short wait does not lower the latency");
        endpoint.record_abandoned_wait(Duration::from_secs(3), now);
        assert!(endpoint.latency(now) > Duration::from_secs(1));
    }
}
