//! One request and its answer: what is known so far, and what must be undone at its end.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{StatusCode, Version};
use pingora::Error;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::ServerSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::Session;

use super::deadlines::{Deadline, Deadlines, Ends};
use super::{admission, failover, headers, refuse};
use crate::connection::{Connection, Policy};
use crate::limit::Verdict;
use crate::observe::{AccessLog, Record};
use crate::pool::peer::Protocol;
use crate::pool::proxy_protocol::ClientConnection;
use crate::pool::{Endpoint, Lease};
use crate::rejection::{Refusal, Rejection};
use crate::request_id::RequestId;
use crate::snapshot::{Route, Snapshot};

/// Pingora's context of one request. Dropping it releases everything.
pub struct Exchange {
    pub(super) snapshot: Arc<Snapshot>,
    began: Instant,
    time: SystemTime,
    /// The connection that it came on; every session of the listener's has one.
    pub(super) connection: Option<Arc<Connection>>,
    /// Who the request is from: the peer, or what a trusted proxy says.
    pub(super) client: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub(super) trusted: bool,
    pub(super) request_id: RequestId,
    pub(super) route: Option<Arc<Route>>,
    /// The limit's answer and its window, for the headers; the route's own where there is one.
    pub(super) verdict: Option<(Verdict, Duration)>,
    /// Why the balancer said no, once it has.
    pub(super) rejection: Option<Rejection>,
    /// What exactly was wrong with it, for the log.
    pub(super) detail: Cow<'static, str>,
    tried: Vec<Arc<Endpoint>>,
    lease: Option<Lease>,
    picked: Option<Instant>,
    upstream_latency: Option<Duration>,
    deadline: Option<Deadline>,
    /// Whether the client speaks HTTP/2, whose connection other requests share.
    http2: bool,
    /// Whether the request's body came to its end.
    received: bool,
    /// Whether the last try failed on a connection that the backend was about to close, which says
    /// nothing about the backend.
    pub(super) stale: bool,
    /// Whether the client asks to switch protocols.
    pub(super) upgrade: bool,
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
            route: None,
            verdict: None,
            rejection: None,
            detail: Cow::Borrowed(""),
            tried: Vec::new(),
            lease: None,
            picked: None,
            upstream_latency: None,
            deadline: None,
            http2: false,
            received: false,
            stale: false,
            upgrade: false,
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
            let forwarded = request.headers.get_all(headers::X_FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok());
            self.client = self.snapshot.trusted_proxies.client(self.client, forwarded);
            if let Some(given) = request.headers.get(headers::X_REQUEST_ID).and_then(RequestId::given) {
                self.request_id = given;
            }
        }
    }

    /// What its listener does to every request.
    pub(super) fn policy(&self) -> Option<&Policy> {
        self.connection.as_ref().map(|connection| connection.policy.as_ref())
    }

    /// What was wrong with the request's body, if the listener found something.
    pub(super) fn fault(&self) -> Option<Refusal> {
        self.connection.as_ref()?.fault()
    }

    /// Picks the first backend, before Pingora begins its tries: after a failed try it always ends
    /// the client's connection, and a pool without a healthy backend is no reason for that.
    pub(super) fn reserve(&mut self) -> Result<(), Rejection> {
        let route = self.route.as_ref().ok_or(Rejection::Internal)?;
        self.lease = Some(route.pool.pick(&self.tried).ok_or_else(|| no_backend(route))?);
        Ok(())
    }

    /// The backend of the next try: the reserved one, then one that was not tried yet.
    #[expect(clippy::disallowed_methods, reason = "the backend's time counts from here")]
    pub(super) fn next_peer(&mut self) -> pingora::Result<Box<HttpPeer>> {
        let Some(route) = self.route.clone() else {
            return Err(refuse(self, Rejection::Internal));
        };
        self.deadline = None;
        if !self.tried.is_empty() {
            // The lease of the try before ends here, by assignment.
            // Where nobody else is left, a connection that ended is no reason to give its backend up.
            let again = || if self.stale { route.pool.pick(&[]) } else { None };
            self.lease = route.pool.pick(&self.tried).or_else(again);
        }
        match &self.lease {
            Some(lease) => {
                let endpoint = Arc::clone(lease.endpoint());
                self.picked = Some(Instant::now());
                let mut peer = match self.upgrade {
                    true => route.template.peer_for_upgrade(endpoint.address()),
                    false => route.template.peer(endpoint.address()),
                };
                self.tried.push(endpoint);
                if self.keeps_time() {
                    peer.options.read_timeout = None;
                }
                if let Some(proxy_protocol) = &route.template.proxy_protocol {
                    proxy_protocol.introduce(&mut peer, self.client_connection());
                }
                Ok(Box::new(peer))
            }
            None => {
                // What went wrong in the try before says more than that nobody else is left.
                let rejection = self.rejection.unwrap_or_else(|| no_backend(&route));
                Err(refuse(self, rejection))
            }
        }
    }

    /// Who a backend is told that its connection is for. A client behind a trusted proxy has an address,
    /// but its port is not known.
    fn client_connection(&self) -> ClientConnection {
        let connection = self.connection.as_deref();
        let peer = connection.map(|connection| connection.peer).filter(|peer| peer.ip() == self.client);
        let local = connection.and_then(|connection| connection.local);
        ClientConnection {
            client: peer.unwrap_or(SocketAddr::new(self.client, 0)),
            local: local.unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)),
        }
    }

    /// How many backends were asked.
    pub(super) fn tries(&self) -> usize {
        self.tried.len()
    }

    /// Whether the time of backends is kept by [`super::deadlines`]. A connection to an HTTP/2 backend
    /// cannot be shut down for one of its streams; there Pingora's timeout is all there is.
    fn keeps_time(&self) -> bool {
        let http1 = |protocol| protocol == Protocol::Http1 || (protocol == Protocol::Auto && self.upgrade);
        self.route.as_ref().is_some_and(|route| http1(route.template.protocol))
    }

    /// Whether the backend may be one that is asked by HTTP/2.
    pub(super) fn may_be_asked_by_http2(&self) -> bool {
        self.route.as_ref().is_some_and(|route| route.template.protocol != Protocol::Http1)
    }

    /// Starts the deadline for what is owed: the rest of the request, then the answer.
    pub(super) fn await_answer(&mut self, deadlines: &Deadlines, fd: RawFd, digest: Option<&Digest>, received: bool) {
        if !self.keeps_time() {
            return;
        }
        self.received = received;
        let local = digest.and_then(|digest| digest.socket_digest.as_ref()?.local_addr()?.as_inet());
        if let (Some(route), Some(local), Some(endpoint)) = (&self.route, local, self.tried.last()) {
            let ends = Ends { local: *local, backend: endpoint.address() };
            let client = self.connection.clone().filter(|_| !self.http2);
            self.deadline = Some(deadlines.start(fd, ends, client, self.patience(route)));
        }
    }

    /// How long may pass until what is owed next comes: a part of the answer, its begin once the backend
    /// has the whole request, or a part of the request.
    fn patience(&self, route: &Route) -> Duration {
        let timeouts = route.template.timeouts;
        match (self.is_answered(), self.received, self.http2) {
            (true, _, _) => timeouts.idle,
            (false, true, _) => timeouts.first_byte,
            (false, false, true) => self.snapshot.client_timeouts.body,
            // The listener's stream keeps the time of the body.
            (false, false, false) => Duration::MAX,
        }
    }

    /// A part of a body moved in either direction.
    pub(super) fn progress(&self) {
        if let (Some(deadline), Some(route)) = (&self.deadline, &self.route) {
            deadline.progress(self.patience(route));
        }
    }

    /// Who took too long, if anybody did.
    pub(super) fn overdue(&self) -> Option<Rejection> {
        let expired = self.deadline.as_ref().is_some_and(Deadline::expired);
        expired.then_some(match (self.is_answered(), self.received) {
            (true, _) => Rejection::IdleTimeout,
            (false, true) => Rejection::FirstByteTimeout,
            (false, false) => Rejection::BodyTimeout,
        })
    }

    /// The answer's header is here. An informational one (100, 103) is not the answer yet, and a
    /// switch of protocols has no end to wait for.
    pub(super) fn answered(&mut self, status: StatusCode) {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // From here on the listener keeps the time, for both directions.
            self.deadline = None;
            if let Some(connection) = &self.connection {
                connection.switch();
            }
        } else if status.is_informational() {
            return;
        }
        self.rejection = None;
        self.upstream_latency = self.picked.map(|picked| picked.elapsed());
        self.progress();
    }

    /// Whether the backend began its answer.
    pub(super) fn is_answered(&self) -> bool {
        self.upstream_latency.is_some()
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

    /// Counts a part of the request's body; `last` is its end. What goes through a tunnel is no body.
    pub(super) fn count_body(&mut self, bytes: usize, last: bool) -> pingora::Result<()> {
        self.received |= last;
        if self.connection.as_ref().is_some_and(|connection| connection.is_switched()) {
            return Ok(());
        }
        self.progress();
        // A length in memory fits into 64 bits.
        self.body_received += bytes as u64;
        let allowed = self.route.as_ref().map_or(u64::MAX, |route| route.body_size);
        if self.body_received > allowed {
            return Err(refuse(self, Rejection::BodyTooLarge).into_down());
        }
        Ok(())
    }

    /// Writes the access line.
    pub(super) fn finish(&mut self, session: &Session, e: Option<&Error>, access_log: &AccessLog) {
        let downstream = session.as_downstream();
        let request = downstream.req_header();
        let status = downstream.response_written().map_or(0, |response| response.status.as_u16());
        let host = admission::host(request);
        let client = match &self.connection {
            Some(connection) if !self.trusted => Cow::Borrowed(connection.peer_text()),
            _ => Cow::Owned(self.client.to_string()),
        };
        access_log.write(&Record {
            time: self.time,
            client: &client,
            method: request.method.as_str(),
            host: host.unwrap_or_default(),
            path: request.uri.path(),
            protocol: protocol(downstream),
            status,
            // Bytes sent in one answer fit into 64 bits.
            bytes: downstream.body_bytes_sent() as u64,
            latency: self.began.elapsed(),
            upstream: self.tried.last().map(|endpoint| endpoint.text()),
            upstream_latency: self.upstream_latency,
            // At most the two tries of the failover rule.
            tries: self.tried.len() as u32,
            route: self.route.as_ref().map(|route| route.name.as_str()),
            request_id: self.request_id.as_str(),
            cause: self.cause(e),
            detail: self.fault().map_or(&*self.detail, |fault| fault.detail),
        });
    }

    fn cause(&self, e: Option<&Error>) -> &'static str {
        match (self.rejection, e) {
            (Some(rejection), _) => rejection.cause(),
            // The answer is whole; that the client did not go on with its request is as it should be.
            (None, Some(_)) if self.ended_early => "",
            (None, Some(e)) if failover::client_is_gone(e) => "client_closed",
            (None, Some(e)) => failover::classify(self, e).cause(),
            (None, None) => "",
        }
    }
}

fn no_backend(route: &Route) -> Rejection {
    Rejection::NoHealthyBackend { retry_after: route.pool.retry_after() }
}

fn protocol(downstream: &ServerSession) -> &'static str {
    match downstream.req_header().version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}
