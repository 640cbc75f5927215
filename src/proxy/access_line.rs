//! The end of a request: its access log line, and its counters.

use std::borrow::Cow;

use http::Version;
use pingora::Error;

use super::client_side::ClientSide;
use super::exchange::Exchange;
use super::failover;
use super::requested_target::RequestedTarget;
use crate::base::cause::Cause;
use crate::base::lifecycle::{AbortedRequest, Lifecycle, Phase};
use crate::decision::host;
use crate::http::rejection::Rejection;
use crate::observe::metrics::{Attempt, Finished};
use crate::observe::{Observers, Record};

impl Exchange {
    /// Writes the access log line, and counts the request.
    pub(super) fn finish(
        &mut self,
        side: &impl ClientSide,
        e: Option<&Error>,
        observers: &Observers,
        lifecycle: &Lifecycle,
    ) {
        if self.uncounted {
            return;
        }
        let cut = self.is_cut(e, lifecycle);
        if cut {
            let route = self.route.as_ref().map(|route| route.name.clone());
            lifecycle.record_aborted(AbortedRequest { route, client: self.client, age: self.began().elapsed() });
        }
        if self.rejection.is_none() && self.expired_timeout() == Some(Rejection::BackendRemoved) {
            self.rejection = Some(Rejection::BackendRemoved);
        }
        if let (Some(Rejection::BackendRemoved), Some(endpoint)) = (self.rejection, self.attempted.last()) {
            endpoint.count_aborted();
        }
        let request = side.request();
        let requested = self.requested.as_deref();
        let status = side.response_status().map_or(0, |status| status.as_u16());
        let host = requested.map_or_else(|| host(request), RequestedTarget::host);
        let client = match &self.connection {
            Some(connection) if !self.trusted => Cow::Borrowed(connection.peer_text()),
            _ => Cow::Owned(self.client.to_string()),
        };
        let record = Record {
            time: self.time,
            client: &client,
            method: request.method.as_str(),
            host: host.unwrap_or_default(),
            path: requested.map_or_else(|| request.uri.path(), |requested| requested.uri.path()),
            query: requested.map_or_else(|| request.uri.query(), |requested| requested.uri.query()),
            protocol: protocol(request.version),
            request_headers: Some(&request.headers),
            response_headers: &self.logged_of_response,
            status,
            bytes: side.body_sent(),
            latency: self.latency(),
            upstream: self.attempted.last().map(|endpoint| endpoint.address_text()),
            upstream_latency: self.upstream_latency,
            // At most the three attempts of the retry policy.
            attempts: self.attempted.len() as u32,
            route: self.route.as_ref().map(|route| route.name.as_str()),
            pool: self.target().map(|target| target.pool.name().as_str()),
            cache: self.cache,
            request_id: self.request_id.as_str(),
            cause: if cut { Some(Cause::Shutdown) } else { self.cause(e) },
            failed_attempts: &self.failed_attempts,
            detail: self.fault().map_or(&*self.detail, |fault| fault.detail),
        };
        let listener = self.policy().map_or("", |policy| &policy.listener);
        let request = Finished {
            overhead: self.times.overhead,
            queued: self.times.queued,
            connect: self.times.connect,
            received: self.body_received(),
            ..Finished::of(listener, &record)
        };
        let timeline = |kept| self.timeline(listener, &record, kept);
        observers.finished(&record, &request, self.attempts(record.cause_text()), timeline);
    }

    /// The attempts of a request with this cause.
    pub(super) fn attempts(&self, cause: &'static str) -> impl Iterator<Item = Attempt<'_>> {
        let last = if self.attempt_outcome.is_empty() { cause } else { self.attempt_outcome };
        let outcomes = self.earlier_attempts.iter().map(|earlier| earlier.outcome).chain([last]);
        self.attempted
            .iter()
            .zip(outcomes)
            .map(|(endpoint, outcome)| Attempt { backend: endpoint.address_text(), outcome })
    }

    /// Whether it was aborted because the process stops.
    fn is_cut(&self, e: Option<&Error>, lifecycle: &Lifecycle) -> bool {
        (e.is_some() || self.switched) && self.rejection.is_none() && lifecycle.phase() == Phase::Aborting
    }

    fn cause(&self, e: Option<&Error>) -> Option<Cause> {
        match (self.rejection, e) {
            (Some(rejection), _) => Some(rejection.cause()),
            // The response is complete; a client that does not finish its request after it is normal.
            (None, Some(_)) if self.has_ended_early() => None,
            (None, Some(e)) if failover::client_has_disconnected(e) => Some(Cause::ClientClosed),
            (None, Some(e)) => Some(failover::classify(self, e).cause()),
            (None, None) => self.own_cause,
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}
