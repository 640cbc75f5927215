//! One request and its answer: what is known so far, and what must be undone at its end.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pingora::Error;
use pingora_proxy::Session;

use super::deadlines::Deadline;
use crate::decision::form;
use crate::decision::snapshot::{Route, Snapshot, Target};
use crate::decision::{Bond, Door};
use crate::http::rejection::{Refusal, Rejection};
use crate::http::request_id::RequestId;
use crate::limit::Verdict;
use crate::listener::connection::{Connection, Policy};
use crate::pool::{Endpoint, Key, Lease};

/// When something must be over, and what is said if it is not.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) at: Instant,
    pub(super) rejection: Rejection,
}

/// Pingora's context of one request. Dropping it releases everything.
pub struct Exchange {
    pub(super) snapshot: Arc<Snapshot>,
    began: Instant,
    pub(super) time: SystemTime,
    /// The connection that it came on; every session of the listener's has one.
    pub(super) connection: Option<Arc<Connection>>,
    /// Who the request is from: the peer, or what a trusted proxy says.
    pub(super) client: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub(super) trusted: bool,
    pub(super) request_id: RequestId,
    /// What its connection says about it.
    pub(super) door: Door,
    pub(super) route: Option<Arc<Route>>,
    /// The limit's answer and its window, for the headers; the route's own where there is one.
    pub(super) verdict: Option<(Verdict, Duration)>,
    /// Why the balancer said no, once it has.
    pub(super) rejection: Option<Rejection>,
    /// What exactly was wrong with it, for the log.
    pub(super) detail: Cow<'static, str>,
    /// What the pool's policy knows the request by.
    pub(super) key: Key,
    /// Which of the route's pools takes it.
    pub(super) share: usize,
    /// Which backend its client is bound to.
    pub(super) bond: Bond,
    /// When it must be over, where there is a limit.
    pub(super) end: Option<End>,
    /// When the try that runs must be over, where there is a limit.
    pub(super) attempt_end: Option<End>,
    /// The backends that were asked.
    pub(super) tried: Vec<Arc<Endpoint>>,
    /// The backend that is working on it.
    pub(super) lease: Option<Lease>,
    /// The backend of the next try.
    pub(super) next: Option<Lease>,
    /// How long to wait before the next try.
    pub(super) pause: Duration,
    pub(super) picked: Option<Instant>,
    /// Whether the backend has been told how the try went.
    pub(super) recorded: bool,
    pub(super) upstream_latency: Option<Duration>,
    pub(super) deadline: Option<Deadline>,
    /// Whether the client speaks HTTP/2, whose connection other requests share.
    pub(super) http2: bool,
    /// Whether the request's body came to its end.
    pub(super) received: bool,
    /// Whether the last try failed on a connection that the backend was about to close, which says
    /// nothing about the backend.
    pub(super) stale: bool,
    /// Whether the client asks to switch protocols.
    pub(super) upgrade: bool,
    /// Whether it is no traffic: somebody asks how the balancer itself is.
    pub(super) uncounted: bool,
    /// Whether the answer was complete before the request was.
    ended_early: bool,
    body_received: u64,
}

impl Exchange {
    /// A request that has just arrived.
    #[expect(clippy::disallowed_methods, reason = "the request's own clock starts here")]
    pub(super) fn begin(snapshot: Arc<Snapshot>) -> Self {
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            snapshot,
            began: Instant::now(),
            time: SystemTime::now(),
            connection: None,
            client: nobody,
            trusted: false,
            request_id: RequestId::random(),
            door: Door::default(),
            route: None,
            verdict: None,
            rejection: None,
            detail: Cow::Borrowed(""),
            key: Key::NONE,
            share: 0,
            bond: Bond::None,
            end: None,
            attempt_end: None,
            tried: Vec::new(),
            lease: None,
            next: None,
            pause: Duration::ZERO,
            picked: None,
            recorded: false,
            upstream_latency: None,
            deadline: None,
            http2: false,
            received: false,
            stale: false,
            upgrade: false,
            uncounted: false,
            ended_early: false,
            body_received: 0,
        }
    }

    /// When the request arrived.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Finds out who the request is from.
    pub(super) fn identify(&mut self, session: &Session) {
        let downstream = session.as_downstream();
        let Some(connection) = downstream.digest().and_then(Connection::of) else { return };
        self.connection = Some(Arc::clone(connection));
        self.http2 = downstream.is_http2();
        self.client = connection.peer.ip();
        self.trusted = self.snapshot.trusted_proxies.contains(self.client);
        if self.trusted {
            let request = downstream.req_header();
            let forwarded = request.headers.get_all(form::X_FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok());
            self.client = self.snapshot.trusted_proxies.client(self.client, forwarded);
            if let Some(given) = request.headers.get(form::X_REQUEST_ID).and_then(RequestId::given) {
                self.request_id = given;
            }
        }
    }

    /// The pool that takes it, as its route has it.
    pub(super) fn target(&self) -> Option<&Target> {
        self.route.as_ref()?.targets.get(self.share)
    }

    /// What its listener does to every request.
    pub(super) fn policy(&self) -> Option<&Policy> {
        self.connection.as_ref().map(|connection| connection.policy.as_ref())
    }

    /// What was wrong with the request's body, if the listener found something.
    pub(super) fn fault(&self) -> Option<Refusal> {
        self.connection.as_ref()?.fault()
    }

    /// The answer is complete. Where the request is not, the client is still sending what nobody
    /// waits for: the listener gives it a moment to notice.
    pub(super) fn ended(&mut self, session: &mut Session) {
        let Some(connection) = &self.connection else { return };
        if !session.is_http2() && !connection.is_switched() && !session.as_downstream_mut().is_body_done() {
            self.ended_early = true;
            connection.end_answer();
        }
    }

    /// Whether the answer was complete before the request was.
    pub(super) fn has_ended_early(&self) -> bool {
        self.ended_early
    }

    /// The whole answer has left. Where it promised the client another turn, the listener keeps the
    /// connection, whatever Pingora makes of it.
    pub(super) fn keep_connection(&self, session: &Session) {
        if let (Some(connection), Some(_)) = (&self.connection, session.get_keepalive()) {
            connection.keep();
        }
    }

    /// Counts a part of the request's body; `last` is its end. What goes through a tunnel is no body.
    #[expect(clippy::disallowed_methods, reason = "the backend's time begins with the end of an upload")]
    pub(super) fn count_body(&mut self, session: &Session, bytes: usize, last: bool) -> pingora::Result<()> {
        if last && !std::mem::replace(&mut self.received, true) {
            self.owed(session, Instant::now());
        }
        if self.connection.as_ref().is_some_and(|connection| connection.is_switched()) {
            return Ok(());
        }
        self.progress();
        // A length in memory fits into 64 bits.
        self.body_received += bytes as u64;
        let allowed = self.route.as_ref().map_or(u64::MAX, |route| route.body_size);
        if self.body_received > allowed {
            return Err(self.reject(Rejection::BodyTooLarge).into_down());
        }
        Ok(())
    }

    /// Notes the rejection, and returns the error that carries it through Pingora.
    pub(super) fn reject(&mut self, rejection: Rejection) -> Box<Error> {
        self.rejection = Some(rejection);
        Error::explain(pingora::ErrorType::HTTPStatus(rejection.status()), rejection.cause())
    }
}
