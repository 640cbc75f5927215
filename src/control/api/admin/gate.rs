//! Which requests reach the endpoints: their host and origin, authentication, and the time and size of their body.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::super::caller::Caller;
use super::super::endpoints::BODY_MAX;
use super::super::problem::{Cause, Problem};
use super::login_limit::LoginLimit;
use super::origin;
use crate::base::event::Event;
use crate::config::admin::{Access, Role};
use crate::control::access::ActiveAccess;
use crate::http::client_address::ClientKey;
use crate::http::fields::single;
use crate::tls::HandshakeResult;

/// The longest time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest body in bytes of a caller who is no admin. Only drafts of configurations are larger, and all bodies are in
/// memory, as many as there are concurrent requests.
const SMALL_BODY_MAX: usize = 64 << 10;

/// One connection.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    /// The result of the handshake; `None` without TLS.
    pub(super) tls: Option<HandshakeResult>,
    /// The names in the verified certificate of the client.
    pub(super) names: Vec<String>,
    /// Whether a request has authenticated.
    pub(super) authenticated: AtomicBool,
}

/// Decides about requests, and passes them to the endpoints.
pub(super) struct Gate {
    router: TowerToHyperService<Router>,
    access: ActiveAccess,
    logins: Mutex<LoginLimit>,
}

/// A rejected request: the problem, and how long to wait.
struct Rejected {
    problem: Problem,
    retry_after: Option<Duration>,
}

impl From<Problem> for Rejected {
    fn from(problem: Problem) -> Self {
        Self { problem, retry_after: None }
    }
}

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        let unauthenticated = self.problem.cause == Cause::Unauthenticated;
        let mut response = self.problem.into_response();
        if unauthenticated {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"l7lb\""));
        }
        if let Some(left) = self.retry_after {
            // At least the rest of the period.
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(left.as_secs() + 1));
        }
        response
    }
}

impl Gate {
    pub(super) fn new(router: Router, access: ActiveAccess) -> Self {
        Self { router: TowerToHyperService::new(router), access, logins: Mutex::default() }
    }

    /// The response to a request.
    pub(super) async fn respond(&self, request: Request<Incoming>, connection: &Connection) -> Response {
        let mut response = match self.pass(request, connection).await {
            Ok(response) => response,
            Err(rejected) => rejected.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    async fn pass(&self, request: Request<Incoming>, connection: &Connection) -> Result<Response, Rejected> {
        let (mut head, body) = request.into_parts();
        let access = self.access.load();
        let in_certificate = |name: &str| connection.tls.as_ref().is_some_and(|tls| tls.has_certificate_for(name));
        origin::check_host(&head, |name| access.hosts.contains(name) || in_certificate(name))?;
        origin::check_origin(&head, connection.tls.is_some())?;
        let caller = self.authenticate(&head, connection, &access)?;
        connection.authenticated.store(true, Ordering::Relaxed);
        let body_max = if caller.role == Role::Admin { BODY_MAX } else { SMALL_BODY_MAX };
        head.extensions.insert(caller);
        // It is no longer needed, and must not reach a log.
        head.headers.remove(AUTHORIZATION);
        let body = read(body, body_max).await?;
        let served = self.router.call(Request::from_parts(head, Body::from(body))).await;
        Ok(served.unwrap_or_else(|never| match never {}))
    }

    /// The caller, by its token, or by its certificate if it presents no token.
    #[expect(clippy::disallowed_methods, reason = "failed logins are counted by the time of the request")]
    fn authenticate(&self, head: &Parts, connection: &Connection, access: &Access) -> Result<Caller, Rejected> {
        let from = connection.peer.ip().to_canonical();
        if !head.headers.contains_key(AUTHORIZATION) {
            return by_certificate(connection, access).map_err(Rejected::from);
        }
        let (client, now) = (ClientKey::from(from), Instant::now());
        if let Some(left) = self.logins.lock().blocked(&client, now) {
            let problem = Problem::new(Cause::TooManyFailedLogins, "too many failed logins from this address");
            return Err(Rejected { problem, retry_after: Some(left) });
        }
        match bearer(head).and_then(|presented| access.token(presented)) {
            Some(token) => {
                Ok(Caller { name: format!("token {}", token.name), from: from.to_string(), role: token.role })
            }
            None => {
                let reason = if bearer(head).is_some() {
                    "the token is not known"
                } else {
                    "`Authorization` is not `Bearer TOKEN`"
                };
                let failed = self.logins.lock().failed(client, now);
                if failed.report {
                    let (from, reason, blocked) = (from.to_string(), reason.to_owned(), failed.blocked);
                    Event::LoginFailed { from, reason, blocked }.announce();
                }
                Err(Problem::new(Cause::Unauthenticated, reason).into())
            }
        }
    }
}

fn by_certificate(connection: &Connection, access: &Access) -> Result<Caller, Problem> {
    let client = connection.tls.as_ref().and_then(|tls| tls.client.as_ref());
    let Some(client) = client else {
        return Err(Problem::new(Cause::Unauthenticated, "the request has neither a token nor a client certificate"));
    };
    let subject = client.subject.to_str().unwrap_or_default();
    let Some(role) = access.role_of_certificate(&connection.names) else {
        return Err(Problem::new(Cause::Forbidden, format!("the certificate {subject} has no role")));
    };
    let from = connection.peer.ip().to_canonical().to_string();
    Ok(Caller { name: format!("certificate {subject}"), from, role })
}

/// The token in the only `Authorization` header.
fn bearer(head: &Parts) -> Option<&str> {
    let (scheme, token) = single(&head.headers, &AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Reads a body of at most `most` bytes.
async fn read(body: Incoming, most: usize) -> Result<bytes::Bytes, Problem> {
    let too_large = || Problem::new(Cause::TooLarge, format!("the body is larger than {most} bytes"));
    // An announced length need not arrive first.
    if body.size_hint().lower() > BODY_MAX as u64 {
        return Err(too_large());
    }
    match timeout(BODY_TIMEOUT, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(e)) => Err(Problem::new(Cause::Malformed, format!("the body cannot be read: {e}"))),
        Err(_) => Err(Problem::new(Cause::BodyTimeout, format!("the body did not arrive within {BODY_TIMEOUT:?}"))),
    }
}
