//! The life of a request, phase by phase: the table of contents of the data path.
//!
//! Each hook of Pingora's [`ProxyHttp`] says in a line or two what happens there and who does it.
//!
//! - [`exchange`]: what is known about the request so far (Pingora's `CTX`).
//! - [`admission`]: may it pass? Sizes, limits, and the route that takes it.
//! - [`affinity`]: which pool and backend the client is bound to.
//! - [`attempts`]: the backends that are asked, one after the other.
//! - [`framing`]: what an answer's head owes to the client's version.
//! - [`headers`]: what is added, replaced and removed on the way in and out.
//! - [`failover`]: what went wrong, and whether another backend is tried.
//! - [`timeouts`]: when a request and its attempts must be over; [`deadlines`]: how long a backend may
//!   take, and how it is stopped.
//! - [`respond`]: a rejection becomes an answer.

mod access_line;
mod admission;
mod deadlines;
mod exchange;
mod failover;
mod framing;
mod headers;
mod respond;
mod affinity;
mod timeouts;
mod attempts;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora::Error;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use deadlines::Deadlines;
pub use exchange::Exchange;

use crate::base::lifecycle::Lifecycle;
use crate::decision::snapshot::Snapshot;
use crate::http::grpc_status::GrpcStatus;
use crate::observe::AccessLog;
use crate::observe::recent_requests::Recorder;
use crate::pool::passive_health::Outcome;

/// The proxy: reads the live snapshot, logs what it did and notes what it was asked.
pub struct Proxy {
    live: Arc<ArcSwap<Snapshot>>,
    access_log: AccessLog,
    deadlines: Deadlines,
    lifecycle: Lifecycle,
    recorder: Recorder,
}

impl Proxy {
    /// A proxy over what is live. Must be called inside the runtime that serves, where the sweep
    /// of deadlines runs.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the epoch of the deadlines")]
    pub fn new(live: Arc<ArcSwap<Snapshot>>, access_log: AccessLog, recorder: Recorder, lifecycle: Lifecycle) -> Self {
        let deadlines = Deadlines::new(Instant::now());
        tokio::spawn(deadlines.clone().sweep());
        Self { live, access_log, deadlines, lifecycle, recorder }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Exchange;

    /// A request begins with the snapshot of this moment.
    fn new_ctx(&self) -> Exchange {
        Exchange::begin(self.live.load_full())
    }

    /// Nothing is compressed, so Pingora's module is left out: it costs an allocation a request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// Who is it?
    async fn early_request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<()> {
        if session.is_http2() {
            // On HTTP/1 the listener's stream keeps the time.
            session.as_downstream_mut().set_write_timeout(Some(exchange.snapshot.client_timeouts.write));
        }
        framing::prepare(session);
        exchange.identify(session);
        Ok(())
    }

    /// May it pass, and where to? A refusal is answered here; else it becomes what backends get. Who asks how
    /// the balancer itself is, asks for nothing else.
    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<bool> {
        if respond::own_health(session, exchange, &self.lifecycle).await? {
            return Ok(true);
        }
        match exchange.admit(session, &self.recorder) {
            Ok(()) => {
                headers::to_backend(session, exchange);
                Ok(false)
            }
            Err(rejection) => {
                respond::reject(session, exchange, rejection).await?;
                Ok(true)
            }
        }
    }

    /// One of the route's pools takes it, and picks a backend. Without one the answer is given here.
    async fn proxy_upstream_filter(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<bool> {
        exchange.bind(session);
        exchange.note(session, &self.recorder);
        match exchange.reserve(session).await {
            Ok(()) => {
                if exchange.may_be_asked_by_http2() {
                    framing::continue_ourselves(session).await?;
                }
                Ok(true)
            }
            Err(rejection) => {
                respond::reject(session, exchange, rejection).await?;
                Ok(false)
            }
        }
    }

    /// How that backend is reached; entered again for another try, then with another backend.
    async fn upstream_peer(&self, _session: &mut Session, exchange: &mut Exchange) -> pingora::Result<Box<HttpPeer>> {
        let pause = std::mem::take(&mut exchange.pause);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        exchange.next_peer()
    }

    /// No connection: nothing was sent, so any request may go to another backend.
    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Exchange,
        e: Box<Error>,
    ) -> Box<Error> {
        failover::after_connect(session, exchange, e)
    }

    /// A connection: the request can be sent.
    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        fd: RawFd,
        digest: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        exchange.await_response(session, &self.deadlines, fd, digest);
        Ok(())
    }

    /// Bodies are counted as they come, also those that did not announce their length. With the
    /// request's end the wait for the answer begins.
    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        last: bool,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        let received = exchange.count_body(session, body.as_ref().map_or(0, Bytes::len), last);
        if received.is_err() {
            session.set_keepalive(None);
        }
        received
    }

    /// The answer has begun, unless it is one that another backend may better.
    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        let (status, verdict) = (response.status, failover::verdict(response));
        failover::after_header(session, exchange, status, verdict)?;
        exchange.answered(status, verdict);
        headers::from_backend(response);
        Ok(())
    }

    /// A part of the answer.
    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end: bool,
        exchange: &mut Exchange,
    ) -> pingora::Result<Option<Duration>> {
        exchange.end_in_time()?;
        exchange.progress();
        Ok(None)
    }

    /// How a call of gRPC's ended, which is how its backend did.
    fn upstream_response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        if let Some(status) = GrpcStatus::of(trailers) {
            exchange.response_failed(Outcome::of_status(status.http()));
        }
        Ok(())
    }

    /// What the client is told beside the answer.
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        framing::adapt(session, response);
        if framing::is_interim(response) {
            return Ok(());
        }
        if framing::is_without_body(response) {
            exchange.ended(session);
        }
        headers::to_client(response, exchange)?;
        exchange.give_cookie(session, response)
    }

    /// A part of the answer on its way to the client; the one before it has left. With the answer's end
    /// a request that is still being sent has lost its purpose.
    fn response_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Exchange,
    ) -> pingora::Result<Option<Duration>> {
        exchange.progress();
        if end {
            exchange.ended(session);
        }
        Ok(None)
    }

    /// The connection broke: may another backend be tried?
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        failover::after_request(session, exchange, e, reused)
    }

    /// No backend is left to try: the client gets an answer that says why, if it is still there.
    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, exchange: &mut Exchange) -> FailToProxy {
        respond::failure(session, exchange, e).await
    }

    /// One line for each request; and whether the client's connection goes on, as its answer said.
    async fn logging(&self, session: &mut Session, e: Option<&Error>, exchange: &mut Exchange) {
        exchange.finish(session, e, &self.access_log, &self.lifecycle);
        if e.is_none() {
            exchange.keep_connection(session);
        }
    }

    /// The access log has the cause; Pingora's own line for each failed request would say it twice.
    fn suppress_error_log(&self, _session: &Session, _exchange: &Exchange, e: &Error) -> bool {
        log::debug!("request failed: {e}");
        true
    }

    /// Likewise for attempts that are repeated; the access log has their number.
    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _exchange: &Exchange,
        e: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        log::debug!("try failed: {e}");
        true
    }
}
