//! One request and its response: the state of both, and the guards released at their end.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::Error;

use super::client_side::ClientSide;
use super::deadlines::Deadline;
use super::mirroring::Mirroring;
use super::requested_target::RequestedTarget;
use crate::base::cause::Cause;
use crate::base::timeouts::Timeouts;
use crate::cache::RouteCache;
use crate::decision::form;
use crate::decision::snapshot::{Route, Snapshot, Target};
use crate::decision::{ConnectionFacts, Filtered, RequestAffinity};
use crate::filter::body::BodyFilters;
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::http::request_id::RequestId;
use crate::limit::Verdict;
use crate::listener::connection::{Connection, Policy};
use crate::pool::{Endpoint, Key, Lease};

/// A deadline, and the rejection when it expires.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestDeadline {
    pub(super) at: Instant,
    pub(super) rejection: Rejection,
}

/// The trial of an ejected backend whose response has not started.
#[derive(Debug)]
pub(super) struct RunningTrial {
    /// The lease on the backend that was reserved first.
    pub(super) reserved: Lease,
    /// How long the trial may take to connect, and then to respond.
    pub(super) wait: Duration,
}

/// How long the steps of a request took; `None` for a step that did not happen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// From the arrival to the first choice of a backend.
    pub(super) overhead: Option<Duration>,
    /// In the queue of the pool.
    pub(super) queued: Option<Duration>,
    /// Until the new connection of the last attempt was established.
    pub(super) connect: Option<Duration>,
}

/// An attempt before the current one.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlierAttempt {
    /// When its backend was chosen.
    pub(super) chosen: Option<Instant>,
    /// In which time its new connection was established.
    pub(super) connect: Option<Duration>,
    /// The status class of its response, or the cause of its failure.
    pub(super) outcome: &'static str,
    /// When the outcome was known.
    pub(super) ended: Option<Instant>,
}

/// Pingora's context of one request. Dropping it releases everything.
pub struct Exchange {
    pub(super) snapshot: Arc<Snapshot>,
    began: Instant,
    pub(super) time: SystemTime,
    /// The client's connection; every session of the listener has one.
    pub(super) connection: Option<Arc<Connection>>,
    /// The client's address: the peer, or the client named by a trusted proxy.
    pub(super) client: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub(super) trusted: bool,
    pub(super) request_id: RequestId,
    /// What the connection implies for the request.
    pub(super) connection_facts: ConnectionFacts,
    pub(super) route: Option<Arc<Route>>,
    /// What the filters have decided; `None` if there are none.
    pub(super) filtered: Option<Box<Filtered>>,
    /// The target that the client requested, if filters have rewritten it.
    pub(super) requested: Option<Box<RequestedTarget>>,
    /// Accept and Accept-Encoding of the client, if filters have changed one of them for backends.
    pub(super) accepted: Option<Box<HeaderMap>>,
    /// What transforms the response body, until its end; `None` if nothing does.
    pub(super) body_filters: Option<Box<BodyFilters>>,
    /// The cause of a response of l7lb itself.
    pub(super) own_cause: Option<Cause>,
    /// The copies of the request that filters send.
    pub(super) mirroring: Option<Box<Mirroring>>,
    /// The decision of the rate limiter and the window of the limit, for the response headers. If the route has its
    /// own limit, they are those of the route.
    pub(super) verdict: Option<(Verdict, Duration)>,
    /// The rejection, if l7lb responds itself.
    pub(super) rejection: Option<Rejection>,
    /// The detail for the access log.
    pub(super) detail: Cow<'static, str>,
    /// The key for the balancing policy.
    pub(super) key: Key,
    /// The index of the chosen pool among the pools of the route.
    pub(super) target_index: usize,
    /// The session affinity of the client.
    pub(super) affinity: RequestAffinity,
    /// The deadline of the request, if it has one.
    pub(super) request_deadline: Option<RequestDeadline>,
    /// The deadline of the current attempt, if it has one.
    pub(super) attempt_deadline: Option<RequestDeadline>,
    /// The backends of all attempts.
    pub(super) attempted: Vec<Arc<Endpoint>>,
    /// The causes of the attempts that failed.
    pub(super) failed_attempts: Vec<Cause>,
    /// The lease of the current attempt.
    pub(super) lease: Option<Lease>,
    /// The lease of the next attempt.
    pub(super) next: Option<Lease>,
    /// The trial of an ejected backend, until its response starts.
    pub(super) trial: Option<RunningTrial>,
    /// The number of failed trials, which do not count as attempts of the retry policy.
    pub(super) trials: usize,
    /// The pause before the next attempt.
    pub(super) backoff: Duration,
    /// When the first backend was reserved, until its attempt starts.
    pub(super) reserved_at: Option<Instant>,
    pub(super) selected_at: Option<Instant>,
    /// Whether the outcome of the attempt was recorded.
    pub(super) recorded: bool,
    /// The status class of the current attempt, or the cause of its failure; empty before its end.
    pub(super) attempt_outcome: &'static str,
    /// When that was; `None` before.
    pub(super) attempt_ended: Option<Instant>,
    /// The earlier attempts.
    pub(super) earlier_attempts: Vec<EarlierAttempt>,
    pub(super) times: Times,
    pub(super) upstream_latency: Option<Duration>,
    pub(super) deadline: Option<Deadline>,
    /// Whether the client uses HTTP/2, whose connection is shared by requests.
    pub(super) http2: bool,
    /// Whether the request body is complete.
    pub(super) received: bool,
    /// Whether the last attempt failed on a connection that the backend was closing, which is not a failure of
    /// the backend.
    pub(super) backend_not_at_fault: bool,
    /// Whether the client requests a protocol upgrade.
    pub(super) upgrade: bool,
    /// Whether the protocol was switched: from here on the bytes are not HTTP.
    pub(super) switched: bool,
    /// The header fields of the response that its access log line has.
    pub(super) logged_of_response: Vec<(HeaderName, HeaderValue)>,
    /// How the cache of the route was used; empty if the route has none.
    pub(super) cache: &'static str,
    /// Cache-Status of the response.
    pub(super) cache_status: Option<HeaderValue>,
    /// The cache in which the response may change stored responses, although it is not stored itself.
    pub(super) affects_cache: Option<Arc<RouteCache>>,
    /// Whether l7lb makes the request on behalf of another one.
    pub(super) is_fork: bool,
    /// Whether the request is a health check of the balancer itself, which is not counted or logged.
    pub(super) uncounted: bool,
    /// When the exchange ended, if that was before its access log line.
    ended_at: Option<Instant>,
    /// Whether the response was complete before the request.
    ended_early: bool,
    body_received: u64,
}

impl Exchange {
    /// The state of a request that arrived at `began`.
    pub(super) fn begin(snapshot: Arc<Snapshot>, began: Instant) -> Self {
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            snapshot,
            began,
            time: SystemTime::now(),
            connection: None,
            client: unknown,
            trusted: false,
            request_id: RequestId::random(),
            connection_facts: ConnectionFacts::default(),
            route: None,
            filtered: None,
            requested: None,
            accepted: None,
            body_filters: None,
            own_cause: None,
            mirroring: None,
            verdict: None,
            rejection: None,
            detail: Cow::Borrowed(""),
            key: Key::NONE,
            target_index: 0,
            affinity: RequestAffinity::None,
            request_deadline: None,
            attempt_deadline: None,
            attempted: Vec::new(),
            failed_attempts: Vec::new(),
            lease: None,
            next: None,
            trial: None,
            trials: 0,
            backoff: Duration::ZERO,
            reserved_at: None,
            selected_at: None,
            recorded: false,
            attempt_outcome: "",
            attempt_ended: None,
            earlier_attempts: Vec::new(),
            times: Times::default(),
            upstream_latency: None,
            deadline: None,
            http2: false,
            received: false,
            backend_not_at_fault: false,
            upgrade: false,
            switched: false,
            logged_of_response: Vec::new(),
            cache: "",
            cache_status: None,
            affects_cache: None,
            is_fork: false,
            uncounted: false,
            ended_at: None,
            ended_early: false,
            body_received: 0,
        }
    }

    /// The state of a request that l7lb makes on behalf of this one, from `now` on.
    pub(super) fn fork(&self, now: Instant) -> Self {
        Self {
            connection: self.connection.clone(),
            client: self.client,
            trusted: self.trusted,
            request_id: self.request_id.clone(),
            connection_facts: self.connection_facts,
            route: self.route.clone(),
            filtered: self.filtered.as_ref().map(|filtered| filtered.for_fetch()),
            http2: self.http2,
            cache: self.cache,
            is_fork: true,
            ..Self::begin(Arc::clone(&self.snapshot), now)
        }
    }

    /// The same state with a clock that starts at `now`.
    pub(super) fn restarted(self, now: Instant) -> Self {
        Self { began: now, ..self }
    }

    /// When the request arrived.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Determines the client address and the request id.
    pub(super) fn identify(&mut self, side: &impl ClientSide) {
        let Some(connection) = side.connection() else { return };
        self.connection = Some(Arc::clone(connection));
        self.http2 = side.is_http2();
        self.client = connection.peer.ip();
        self.trusted = self.snapshot.trusted_proxies.contains(self.client);
        if self.trusted {
            let request = side.request();
            self.client = self.snapshot.trusted_proxies.client(self.client, &request.headers);
            if let Some(given) = request.headers.get(form::X_REQUEST_ID).and_then(RequestId::given) {
                self.request_id = given;
            }
        }
    }

    /// Keeps the header fields of the final response that its access log line has.
    pub(super) fn note_response(&mut self, headers: &HeaderMap) {
        let names = &self.snapshot.logged_of_responses;
        if !names.is_empty() {
            let value = |name: &HeaderName| Some((name.clone(), headers.get(name)?.clone()));
            self.logged_of_response = names.iter().filter_map(value).collect();
        }
    }

    /// The cache of the route, if it has one.
    pub(super) fn route_cache(&self) -> Option<Arc<RouteCache>> {
        self.route.as_ref()?.cache.clone()
    }

    /// The largest request body in bytes, if filters limit it.
    pub(super) fn body_size(&self) -> Option<u64> {
        self.filtered.as_ref()?.changes.body_size
    }

    /// The largest request body in bytes that is received before a backend is chosen, if it is.
    pub(super) fn buffer_size(&self) -> Option<u64> {
        self.filtered.as_ref()?.changes.buffer_size
    }

    /// The timeouts of the request at the pool `target`.
    pub(super) fn timeouts(&self, target: &Target) -> Timeouts {
        let own = target.template.timeouts;
        self.filtered.as_ref().map_or(own, |filtered| filtered.changes.timeouts.over(own))
    }

    /// The chosen pool of the route.
    pub(super) fn target(&self) -> Option<&Target> {
        self.route.as_ref()?.targets.get(self.target_index)
    }

    /// The settings of the listener.
    pub(super) fn policy(&self) -> Option<&Policy> {
        self.connection.as_ref().map(|connection| connection.policy.as_ref())
    }

    /// The fault that the listener found in the request body, if any.
    pub(super) fn fault(&self) -> Option<DetailedRejection> {
        self.connection.as_ref()?.fault()
    }

    /// Marks the response as complete. If the request is not complete, the listener keeps the connection open briefly,
    /// so that the client can read the response.
    pub(super) fn response_complete(&mut self, side: &mut impl ClientSide) {
        let Some(connection) = &self.connection else { return };
        if !side.is_http2() && !self.switched && !side.is_request_complete() {
            self.ended_early = true;
            connection.mark_response_complete();
        }
    }

    /// Marks the end of the exchange, which is now and is returned; its access log line follows later.
    #[expect(clippy::disallowed_methods, reason = "the exchange ends now")]
    pub(super) fn mark_end(&mut self) -> Instant {
        *self.ended_at.insert(Instant::now())
    }

    /// The time from the arrival of the request to its end, or to now.
    pub(super) fn latency(&self) -> Duration {
        self.ended_at.map_or_else(|| self.began.elapsed(), |ended| ended.saturating_duration_since(self.began))
    }

    /// Bytes of the request body so far.
    pub(super) fn body_received(&self) -> u64 {
        self.body_received
    }

    /// Whether the response was complete before the request.
    pub(super) fn has_ended_early(&self) -> bool {
        self.ended_early
    }

    /// Keeps the client's connection open after the whole response was sent, unless Pingora has disabled keep-alive
    /// for it.
    pub(super) fn keep_connection(&self, side: &impl ClientSide) {
        if let (Some(connection), true) = (&self.connection, side.is_keepalive()) {
            connection.mark_keepalive();
        }
    }

    /// Counts a part of the request body; `last` marks its end. Bytes in a tunnel do not count.
    #[expect(clippy::disallowed_methods, reason = "the first-byte timeout of the backend starts when the upload ends")]
    pub(super) fn count_body(&mut self, side: &impl ClientSide, bytes: usize, last: bool) -> pingora::Result<()> {
        if last && !std::mem::replace(&mut self.received, true) {
            self.start_first_byte_wait(side, Instant::now());
        }
        if self.switched {
            return Ok(());
        }
        self.progress();
        // A length in memory fits into 64 bits.
        self.body_received += bytes as u64;
        let route = || self.route.as_ref().map_or(u64::MAX, |route| route.body_size);
        let allowed = self.body_size().unwrap_or_else(route);
        if self.body_received > allowed {
            return Err(self.reject(Rejection::BodyTooLarge).into_down());
        }
        Ok(())
    }

    /// Stores the rejection and returns the error that carries it through Pingora.
    pub(super) fn reject(&mut self, rejection: Rejection) -> Box<Error> {
        self.rejection = Some(rejection);
        Error::explain(pingora::ErrorType::HTTPStatus(rejection.status()), rejection.cause().as_str())
    }
}
