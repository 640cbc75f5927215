//! The attempts of a request: which backend each one uses, how long it may take, and its outcome.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use pingora_core::upstreams::peer::HttpPeer;

use super::affinity::AFFINITY_LOST;
use super::client_side::ClientSide;
use super::deadlines::{Deadline, Deadlines, Expiry, Limits, ToBackend};
use super::exchange::{EarlierAttempt, Exchange};
use crate::base::event::Event;
use crate::base::units::Period;
use crate::decision::snapshot::{Route, Target};
use crate::http::rejection::Rejection;
use crate::observe::metrics::status_class;
use crate::pool::Lease;
use crate::pool::passive_health::Outcome;
use crate::pool::peer::Protocol;
use crate::pool::peer::proxy_protocol::ClientConnection;
use crate::retry::{self, AttemptOutcome, AttemptState};

/// The proxy's request body timeout is longer than the listener's by this, so that the listener reports the
/// client's pause first.
const BODY_TIMEOUT_MARGIN: Duration = Duration::from_secs(1);

impl Exchange {
    /// Reserves the first backend before Pingora starts its attempts: an unavailable pool does not count as a
    /// failed attempt.
    ///
    /// # Errors
    /// The rejection. If all backends are at their limits, it comes after the wait in the queue.
    #[expect(clippy::disallowed_methods, reason = "a queued request picks its backend when it leaves the queue")]
    pub(super) async fn reserve(&mut self, side: &mut impl ClientSide) -> Result<(), Rejection> {
        let target = self.target().ok_or(Rejection::Internal)?;
        target.pool.budget().deposit(self.began());
        let total = self.timeouts(target).total;
        self.key = target.pool.key(self.client, side.request());
        self.set_deadlines(&side.request().headers, total)?;
        let target = self.target().ok_or(Rejection::Internal)?;
        let mut moved = false;
        let mut picked_at = self.began();
        // Without a queue the request does not wait, and the clock is read when the backend is picked.
        let waits_from = target.pool.has_queue().then(Instant::now);
        let pick = || {
            picked_at = Instant::now();
            self.pick(&mut moved, picked_at)
        };
        let reserved = target.pool.reserve(pick).await;
        self.times.overhead = Some(waits_from.unwrap_or(picked_at).saturating_duration_since(self.began()));
        self.times.queued = waits_from.map(|from| from.elapsed());
        if moved {
            self.detail = AFFINITY_LOST.into();
        }
        let first = self.with_trial(side, reserved?, picked_at);
        (self.next, self.reserved_at) = (Some(first), Some(picked_at));
        Ok(())
    }

    /// Picks a backend that was not attempted yet, by session affinity if possible.
    fn pick(&self, moved: &mut bool, now: Instant) -> Option<Lease> {
        self.pick_by_affinity(moved).or_else(|| self.target()?.pool.pick(self.key, &self.attempted, now))
    }

    /// Reserves another backend for a retry, if the policy of the route and the budget of the pool allow it.
    #[expect(clippy::disallowed_methods, reason = "budgets and limits count from the failure")]
    pub(super) fn retry_elsewhere(&mut self, side: &impl ClientSide, failure: AttemptOutcome) -> bool {
        let Some(route) = self.route.clone() else { return false };
        let now = Instant::now();
        if let Some(reserved) = self.end_trial() {
            self.next = Some(reserved);
            return true;
        }
        let attempt = self.attempt(&route, side, now);
        let over = self.request_deadline.is_some_and(|end| end.at <= now);
        let permitted = if over { Err(retry::not_retried::TOTAL) } else { route.retry.permits(failure, attempt) };
        match permitted.and_then(|()| self.reserve_another(failure, now)) {
            Ok(lease) => {
                self.backoff = retry::pause(failure, attempt.attempts, fastrand::u64(..));
                self.next = Some(lease);
                true
            }
            Err(why) => {
                if !why.is_empty() {
                    self.detail = why.into();
                }
                false
            }
        }
    }

    /// The state of the attempt, from which the retry policy decides.
    pub(super) fn attempt(&self, route: &Route, side: &impl ClientSide, now: Instant) -> AttemptState {
        let request = side.request();
        AttemptState {
            attempts: self.attempted.len().saturating_sub(self.trials),
            elapsed: now.saturating_duration_since(self.began()),
            idempotent: request.method.is_idempotent(),
            has_idempotency_key: route.retry.idempotency_key && request.headers.contains_key("idempotency-key"),
            replayable: side.is_replayable(),
        }
    }

    /// Picks another backend and takes a retry from the budget. A retry after a failed connection is free: no
    /// backend has worked on the request.
    fn reserve_another(&mut self, failure: AttemptOutcome, now: Instant) -> Result<Lease, &'static str> {
        // The budget is checked before picking: an unused pick would skip a healthy backend, and the next would
        // get the failing one again.
        let free = failure == AttemptOutcome::Connect;
        if !self.target().is_some_and(|target| free || target.pool.budget().withdraw(now)) {
            return Err(retry::not_retried::BUDGET);
        }
        let mut moved = false;
        let mut lease = self.pick(&mut moved, now);
        if moved {
            self.detail = AFFINITY_LOST.into();
        }
        if lease.is_none() && self.backend_not_at_fault {
            // Without another backend, a stale connection is no reason to avoid its backend.
            lease = self.target().and_then(|target| target.pool.pick(self.key, &[], now));
        }
        lease.ok_or(retry::not_retried::NO_OTHER)
    }

    /// The peer of the reserved backend.
    #[expect(clippy::disallowed_methods, reason = "the latency of the backend is measured from here")]
    pub(super) fn next_peer(&mut self) -> pingora::Result<Box<HttpPeer>> {
        self.deadline = None;
        let mut next = self.next.take();
        if let (Some(next), Some(before)) = (&mut next, &mut self.lease) {
            next.take_over(before);
        }
        // The assignment drops the lease of the previous attempt.
        self.lease = next;
        let Some((lease, target)) = self.lease.as_ref().zip(self.target()) else {
            return Err(self.reject(Rejection::Internal));
        };
        let endpoint = Arc::clone(lease.endpoint());
        let timeouts = self.timeouts(target);
        let mut peer = match self.upgrade {
            true => target.template.peer_for_upgrade(endpoint.address(), &timeouts),
            false => target.template.peer(endpoint.address(), &timeouts),
        };
        if self.enforces_timeouts() {
            peer.options.read_timeout = None;
        }
        if let Some(trial) = &self.trial {
            let options = &mut peer.options;
            for timeout in [&mut options.connection_timeout, &mut options.total_connection_timeout] {
                *timeout = timeout.map(|timeout| timeout.min(trial.wait));
            }
        }
        if let Some(proxy_protocol) = &target.template.proxy_protocol {
            proxy_protocol.set_client_header(&mut peer, endpoint.address(), self.client_connection());
        }
        let keepalive_timeout = target.template.keepalive_timeout;
        peer.options.idle_timeout = Some(endpoint.idle_limit().usable_for(keepalive_timeout));
        if let Some(limit) = endpoint.idle_limit().newly_exceeded_by(keepalive_timeout) {
            let (pool, backend) = (target.pool.name().clone(), endpoint.address());
            let (limit, keepalive_timeout) = (Period(limit), Period(keepalive_timeout));
            Event::KeepaliveShortened { pool, backend, limit, keepalive_timeout }.announce();
        }
        let now = self.reserved_at.unwrap_or_else(Instant::now);
        self.set_attempt_deadline(&mut peer, timeouts.attempt, now)?;
        if !self.attempted.is_empty() {
            self.end_attempt();
        }
        (self.selected_at, self.recorded, self.rejection) = (Some(now), false, None);
        self.reserved_at = None;
        self.attempted.push(endpoint);
        Ok(Box::new(peer))
    }

    /// The client connection in the PROXY protocol header. The port of a client behind a trusted proxy is
    /// unknown.
    fn client_connection(&self) -> ClientConnection {
        let connection = self.connection.as_deref();
        let peer = connection.map(|connection| connection.peer).filter(|peer| peer.ip() == self.client);
        let local = connection.and_then(|connection| connection.local);
        ClientConnection {
            client: peer.unwrap_or(SocketAddr::new(self.client, 0)),
            local: local.unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)),
        }
    }

    /// Whether [`super::deadlines`] enforces the timeouts of the backend. An HTTP/2 connection cannot be shut
    /// down for one of its streams; there only Pingora's read timeout applies.
    pub(super) fn enforces_timeouts(&self) -> bool {
        let http1 = |protocol| protocol == Protocol::Http1 || (protocol == Protocol::Auto && self.upgrade);
        self.target().is_some_and(|target| http1(target.template.protocol))
    }

    /// Whether the backend may use HTTP/2.
    pub(super) fn may_use_http2(&self) -> bool {
        self.target().is_some_and(|target| target.template.protocol != Protocol::Http1)
    }

    /// Starts the timeouts for the rest of the request and for the response: `deadlines` for a connection, by
    /// descriptor and local address, that belongs to this request alone.
    pub(super) fn await_response(
        &mut self,
        side: &mut impl ClientSide,
        deadlines: Option<&Deadlines>,
        connection: (RawFd, Option<SocketAddr>),
    ) {
        self.received = side.is_request_complete();
        if let Some(deadlines) = deadlines {
            self.start_deadline(deadlines, connection);
        }
        if let (true, Some(picked)) = (self.received, self.selected_at) {
            self.start_first_byte_wait(side, picked);
        }
    }

    /// Starts the wait for the response: at `since` the whole request had been sent to the backend. If the backend is
    /// ejected as unresponsive meanwhile, or stops responding to health checks, a request that may be retried stops
    /// waiting.
    pub(super) fn start_first_byte_wait(&mut self, side: &impl ClientSide, since: Instant) {
        if let Some(lease) = &mut self.lease {
            lease.await_response(since);
        }
        if let (Some(deadline), Some(route)) = (&self.deadline, &self.route) {
            let permitted = route.retry.permits(AttemptOutcome::Unresponsive, self.attempt(route, side, since));
            deadline.set_retryable_until(permitted.ok().and_then(|()| self.began().checked_add(route.retry.total)));
        }
    }

    fn start_deadline(&mut self, deadlines: &Deadlines, (fd, local): (RawFd, Option<SocketAddr>)) {
        let to = self.attempted.last().and_then(|endpoint| ToBackend::new(fd, local, Arc::clone(endpoint)));
        if let (Some(target), Some(to)) = (self.target(), to) {
            let client = self.connection.clone().filter(|_| !self.http2);
            let limits = Limits { pause: self.current_timeout(target), end: self.attempt_deadline.map(|end| end.at) };
            self.deadline = Some(deadlines.start(to, client, limits));
        }
    }

    /// The current timeout: for the next part of the response, for its start once the backend has the whole
    /// request, or (while the body is being sent) for the next part of the request.
    fn current_timeout(&self, target: &Target) -> Duration {
        let timeouts = self.timeouts(target);
        if self.switched {
            return Duration::MAX;
        }
        match (self.has_response(), self.received, self.http2) {
            (true, _, _) => timeouts.idle,
            (false, true, _) => self.first_byte_timeout(target),
            (false, false, true) => self.snapshot.client_timeouts.body,
            // The listener enforces the body timeout. If it does not expire first, the backend is not reading.
            (false, false, false) => timeouts.idle.max(self.snapshot.client_timeouts.body + BODY_TIMEOUT_MARGIN),
        }
    }

    /// The timeout for the start of the response.
    pub(super) fn first_byte_timeout(&self, target: &Target) -> Duration {
        let configured = self.timeouts(target).first_byte;
        self.trial.as_ref().map_or(configured, |trial| trial.wait.min(configured))
    }

    /// Restarts the timeout: a part of a body moved in either direction.
    pub(super) fn progress(&self) {
        if let (Some(deadline), Some(target)) = (&self.deadline, self.target()) {
            deadline.progress(self.current_timeout(target));
        }
    }

    /// Whether the attempt was ended because its backend was ejected as unresponsive.
    pub(super) fn ended_as_unresponsive(&self) -> bool {
        self.deadline.as_ref().and_then(Deadline::expired) == Some(Expiry::Unresponsive)
    }

    /// The rejection for the expired timeout, if one has expired.
    pub(super) fn expired_timeout(&self) -> Option<Rejection> {
        Some(match (self.deadline.as_ref().and_then(Deadline::expired)?, self.has_response(), self.received) {
            (Expiry::Removal, _, _) => Rejection::BackendRemoved,
            (Expiry::Unresponsive, _, _) => Rejection::FirstByteTimeout,
            (Expiry::Deadline, _, _) => self.attempt_deadline.map_or(Rejection::Internal, |end| end.rejection),
            (Expiry::Pause, true, _) => Rejection::IdleTimeout,
            (Expiry::Pause, false, true) => Rejection::FirstByteTimeout,
            (Expiry::Pause, false, false) if self.http2 => Rejection::BodyTimeout,
            (Expiry::Pause, false, false) => Rejection::IdleTimeout,
        })
    }

    /// Handles the header of the response. An interim response (100, 103) is not final, and after a protocol
    /// switch there is no total deadline.
    #[expect(clippy::disallowed_methods, reason = "the latency of the backend is measured to here")]
    pub(super) fn response_started(&mut self, status: StatusCode, verdict: AttemptOutcome) {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // From here on the client side enforces the timeouts, for both directions.
            self.switched = true;
            self.attempt_deadline = None;
            if let Some(deadline) = &self.deadline {
                deadline.remove_total_deadline();
            }
            // An HTTP/2 connection has other streams.
            if let Some(connection) = self.connection.as_ref().filter(|_| !self.http2) {
                connection.mark_switched();
            }
        } else if status.is_informational() {
            return;
        }
        self.rejection = None;
        self.trial = None;
        let now = Instant::now();
        self.upstream_latency = self.selected_at.map(|picked| now.saturating_duration_since(picked));
        self.record_at(verdict, now);
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(lease)) = (status, &mut self.lease) {
            lease.protocol_switched();
        }
        if let Some(deadline) = &self.deadline {
            deadline.set_retryable_until(None);
        }
        self.progress();
    }

    /// Whether the response has started.
    pub(super) fn has_response(&self) -> bool {
        self.upstream_latency.is_some()
    }

    /// Keeps what is known of the attempt before the next one.
    fn end_attempt(&mut self) {
        self.earlier_attempts.push(EarlierAttempt {
            chosen: self.selected_at,
            connect: self.times.connect.take(),
            outcome: std::mem::take(&mut self.attempt_outcome),
            ended: self.attempt_ended.take(),
        });
    }

    /// Notes the outcome of the attempt for its counters.
    pub(super) fn note_outcome(&mut self, outcome: AttemptOutcome, now: Instant) {
        self.attempt_ended = Some(now);
        self.attempt_outcome = match outcome {
            AttemptOutcome::Status(status) => status_class(status),
            AttemptOutcome::Grpc(status) => status_class(status.http()),
            // Its cause was noted before.
            AttemptOutcome::Connect
            | AttemptOutcome::Reset
            | AttemptOutcome::Timeout
            | AttemptOutcome::Unresponsive
            | AttemptOutcome::RefusedStream => self.failed_attempts.last().map_or("internal", |cause| cause.as_str()),
        };
    }

    /// Notes that the connection of the attempt is new, and established now.
    pub(super) fn connection_established(&mut self) {
        self.times.connect = self.selected_at.map(|picked| picked.elapsed());
    }

    /// Notes an outcome that is not recorded, because the backend is not at fault.
    #[expect(clippy::disallowed_methods, reason = "the attempt failed now")]
    pub(super) fn note_outcome_now(&mut self, outcome: AttemptOutcome) {
        self.note_outcome(outcome, Instant::now());
    }

    /// Records the outcome of the attempt, once.
    #[expect(clippy::disallowed_methods, reason = "the latency of the backend is measured to here")]
    pub(super) fn record(&mut self, outcome: AttemptOutcome) {
        self.record_at(outcome, Instant::now());
    }

    /// Records that the response failed after its header had arrived.
    #[expect(clippy::disallowed_methods, reason = "the time of the failure is now")]
    pub(super) fn response_failed(&mut self, failure: Outcome) {
        let idle = self.target().map_or(Duration::ZERO, |target| self.timeouts(target).idle);
        let stalled = if self.rejection == Some(Rejection::IdleTimeout) { idle } else { Duration::ZERO };
        if let Some(lease) = &mut self.lease {
            lease.response_failed(failure, stalled, Instant::now());
        }
    }

    fn record_at(&mut self, outcome: AttemptOutcome, now: Instant) {
        self.note_outcome(outcome, now);
        if std::mem::replace(&mut self.recorded, true) {
            return;
        }
        let Some(lease) = &mut self.lease else { return };
        match outcome {
            AttemptOutcome::Status(status) => lease.response_started(Outcome::of_status(status), now),
            AttemptOutcome::Grpc(status) => lease.response_started(Outcome::of_status(status.http()), now),
            AttemptOutcome::Connect | AttemptOutcome::Reset => lease.failed(now),
            AttemptOutcome::Timeout | AttemptOutcome::Unresponsive => {
                lease.pause_trial(now);
                lease.failed(now);
            }
            // The backend did not process it, so there is no outcome.
            AttemptOutcome::RefusedStream => {}
        }
    }
}
