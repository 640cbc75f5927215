//! One health check on the wire: a connection, an HTTP request or a gRPC call with Pingora's connectors, run
//! when a backend is due.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::connectors::http::Connector;
use pingora_core::upstreams::peer::{BasicPeer, HttpPeer};
use pingora_http::RequestHeader;
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;
use tokio::sync::watch;

use crate::base::accept_errors::descriptors_exhausted;
use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::units::PoolName;
use crate::pool::endpoint::Endpoint;
use crate::pool::health::config::{CheckRequest, HttpRequest, Spec};
use crate::pool::health::connectors::Connectors;
use crate::pool::health::failure::Failure;
use crate::pool::health::grpc::GrpcCheck;
use crate::pool::health::schedule::CheckResult;
use crate::pool::health::state::Health;
use crate::pool::operator::event_limit::EventLimit;
use crate::pool::operator::overrides::State;
use crate::pool::peer::Template;

/// The kinds of checks.
enum Check {
    Tcp,
    Http(Box<HttpCheck>),
    Grpc(Box<GrpcCheck>),
}

impl Check {
    async fn run(&self, connectors: &Connectors, peer: HttpPeer) -> Result<(), Failure> {
        match self {
            Self::Tcp => Ok(connectors.transport().get_stream(&tcp_peer(peer)).await.map(drop)?),
            Self::Http(check) => Ok(check.run(connectors.http(), &peer).await?),
            // Requests over HTTP/2 do not depend on it.
            Self::Grpc(check) => {
                let result = check.run(connectors.http(), &peer).await;
                result.map_err(|reason| Failure { reason, silent: false })
            }
        }
    }
}

/// An HTTP request and the status codes that pass.
struct HttpCheck {
    header: RequestHeader,
    status: Vec<RangeInclusive<u16>>,
}

impl HttpCheck {
    fn new(request: &HttpRequest, template: &Template) -> pingora::Result<Self> {
        let host = request.host.clone().unwrap_or_else(|| template.host().to_owned());
        let mut header = RequestHeader::build("GET", request.path.as_bytes(), Some(request.headers.len() + 2))?;
        header.insert_header(http::header::HOST, host)?;
        header.insert_header(http::header::USER_AGENT, "l7lb-health-check")?;
        for (name, value) in &request.headers {
            header.insert_header(name.clone(), value.as_str())?;
        }
        Ok(Self { header, status: request.status.clone() })
    }

    /// Checks the backend on a new connection that is not reused: a kept connection would hide that no new one
    /// can be established.
    async fn run(&self, connector: &Connector, peer: &HttpPeer) -> pingora::Result<()> {
        let (mut session, _) = connector.get_http_session(peer).await?;
        session.set_write_timeout(peer.options.write_timeout);
        session.write_request_header(Box::new(self.header.clone())).await?;
        session.finish_request_body().await?;
        session.set_read_timeout(peer.options.read_timeout);
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |header| header.status.as_u16());
        if !self.status.iter().any(|range| range.contains(&status)) {
            return pingora::Error::e_explain(pingora::ErrorType::HTTPStatus(status), "unexpected status");
        }
        // A truncated response fails the check.
        while session.read_response_body().await?.is_some() {}
        Ok(())
    }
}

/// The health check of one pool.
pub(in crate::pool) struct Probe {
    pool: PoolName,
    spec: Spec,
    template: Template,
    check: Check,
    connectors: Connectors,
    /// Notified after each finished check.
    progress: Arc<watch::Sender<bool>>,
    events: Arc<EventLimit>,
}

impl Probe {
    /// The check for backends that are connected by `template`.
    ///
    /// # Errors
    /// If the request cannot be built, which the configuration check rules out.
    pub(in crate::pool) fn new(
        pool: PoolName,
        spec: Spec,
        (template, connectors): (&Template, Connectors),
        (progress, events): (Arc<watch::Sender<bool>>, Arc<EventLimit>),
    ) -> pingora::Result<Self> {
        let check = match &spec.request {
            CheckRequest::Tcp => Check::Tcp,
            CheckRequest::Http(request) => Check::Http(Box::new(HttpCheck::new(request, template)?)),
            CheckRequest::Grpc(service) => Check::Grpc(Box::new(GrpcCheck::new(service, template.host())?)),
        };
        Ok(Self { pool, spec, template: template.clone(), check, connectors, progress, events })
    }

    /// Checks the backend within the timeout.
    async fn run(&self, address: BackendAddress) -> Result<(), Failure> {
        let peer = self.template.peer_for_check(address, self.spec.timeout);
        match tokio::time::timeout(self.spec.timeout, self.check.run(&self.connectors, peer)).await {
            Ok(result) => result,
            Err(_) => Err(Failure { reason: format!("no response within {:?}", self.spec.timeout), silent: true }),
        }
    }

    /// The interval at which schedules are examined.
    pub(in crate::pool) fn tick_interval(&self) -> Duration {
        self.spec.timing.tick_interval()
    }

    /// When the next check of the backend is due, at the earliest `now`. `None` for a disabled backend, which is not checked.
    pub(in crate::pool) fn next_check(&self, endpoint: &Endpoint, now: Instant) -> Option<Instant> {
        let is_checked = endpoint.state() != State::Disabled;
        is_checked.then(|| endpoint.schedule.lock().next(now, &self.spec.timing))
    }

    /// Checks the backend, and applies the result.
    #[expect(clippy::disallowed_methods, reason = "the pool's background task is where check times come from")]
    pub(in crate::pool) async fn check(&self, endpoint: &Endpoint) {
        let (began, before) = (Instant::now(), endpoint.health());
        let failure = self.run(endpoint.address()).await.err();
        // Without file descriptors no check can be made, which says nothing about the backend.
        if failure.is_some() && descriptors_exhausted() {
            return;
        }
        let result = CheckResult { passed: failure.is_none(), began, jitter: fastrand::f64() };
        let health = endpoint.schedule.lock().observe(before, result, &self.spec.timing);
        endpoint.set_silent(failure.as_ref().is_some_and(|failure| failure.silent));
        endpoint.set_health(health, began);
        if result.passed {
            endpoint.passive_health().offer_trial(began);
        }
        if health != before {
            self.announce(endpoint, failure.map(|failure| failure.reason), began);
        }
        self.progress.send_modify(|_| ());
    }

    fn announce(&self, endpoint: &Endpoint, reason: Option<String>, now: Instant) {
        let (pool, backend) = (self.pool.clone(), endpoint.address());
        let event = match reason {
            None => Event::BackendUp { pool, backend },
            Some(reason) => Event::BackendDown { pool, backend, reason },
        };
        self.events.announce(event, now);
    }
}

fn tcp_peer(peer: HttpPeer) -> BasicPeer {
    let mut basic = BasicPeer::new("0.0.0.0:1");
    basic._address = peer._address;
    // This kind of peer cannot have a client certificate. A backend that requires one would reject the
    // handshake, so the TCP connection has to suffice.
    if peer.client_cert_key.is_none() {
        basic.sni = peer.sni;
    }
    basic.options = peer.options;
    basic
}

/// The health check of a pool, as Pingora's background loop runs it.
pub(in crate::pool) struct PoolCheck(Arc<Probe>);

impl PoolCheck {
    /// The check with this probe.
    pub(in crate::pool) fn new(probe: Arc<Probe>) -> Self {
        Self(probe)
    }
}

#[async_trait]
impl HealthCheck for PoolCheck {
    /// Checks the backend if that is due, and returns its health.
    #[expect(clippy::disallowed_methods, reason = "the pool's background task is where check times come from")]
    async fn check(&self, target: &Backend) -> pingora::Result<()> {
        let Some(endpoint) = target.ext.get::<Arc<Endpoint>>() else { return Ok(()) };
        let now = Instant::now();
        if self.0.next_check(endpoint, now).is_some_and(|at| at <= now) {
            self.0.check(endpoint).await;
        }
        match endpoint.health() {
            Health::Up => Ok(()),
            Health::Unknown | Health::Down => {
                pingora::Error::e_explain(pingora::ErrorType::Custom("unhealthy"), "see the event of the state change")
            }
        }
    }

    /// `rise` and `fall` are counted in the schedule.
    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}
