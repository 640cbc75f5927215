//! May a request pass, and which route takes it?
//!
//! The order matters: what is cheap and protects the rest comes first, and the limit over
//! everything counts before routing, so that a flood of requests for nothing counts too.

use std::borrow::Cow;

use http::{Method, Version, header};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::exchange::Exchange;
use super::headers;
use crate::http1::check_authority;
use crate::limit::Limiter;
use crate::net::ClientKey;
use crate::rejection::{Refusal, Rejection};
use crate::request_limits::RequestLimits;
use crate::target::{self, Encoded};
use crate::tls::Established;

impl Exchange {
    /// Decides, and remembers the route.
    pub(super) fn admit(&mut self, session: &mut Session) -> Result<(), Rejection> {
        let request = session.as_downstream().req_header();
        if request.version == Version::HTTP_2 {
            // On HTTP/1 the listener has looked at it.
            check_size(request, self.snapshot.request_limits)?;
        }
        check_form(request).map_err(|refusal| self.because(refusal))?;
        self.upgrade = request.headers.contains_key(header::UPGRADE);
        if let Some(limiter) = self.snapshot.limiter.clone() {
            self.count(&limiter)?;
        }
        check_direction(session, request)?;
        if self.connection.as_ref().is_some_and(|connection| connection.policy.redirect_to_https.is_some()) {
            return Err(Rejection::HttpsRequired);
        }
        let encoded = normalise(session.as_downstream_mut().req_header_mut());
        let encoded = encoded.map_err(|refusal| self.because(refusal))?;
        let request = session.as_downstream().req_header();
        let route = self.snapshot.routes.find(host(request), request.uri.path(), &request.method).cloned();
        let route = self.route.insert(route.ok_or(Rejection::NoRoute)?).clone();
        if !route.allow_encoded.permits(encoded) {
            self.detail = "an escape in the path that the route does not allow";
            return Err(Rejection::BadRequest);
        }
        if let Some(limiter) = &route.limiter {
            self.count(limiter)?;
        }
        if announced_body(request).is_some_and(|bytes| bytes > route.body_size) {
            return Err(Rejection::BodyTooLarge);
        }
        Ok(())
    }

    /// Keeps what exactly was wrong for the log.
    fn because(&mut self, refusal: Refusal) -> Rejection {
        self.detail = refusal.detail;
        refusal.rejection
    }

    fn count(&mut self, limiter: &Limiter) -> Result<(), Rejection> {
        let verdict = limiter.admit(ClientKey::from(self.client), self.began());
        self.verdict = Some((verdict, limiter.spec().window));
        if verdict.admitted { Ok(()) } else { Err(Rejection::RateLimited { retry_after: verdict.retry_after }) }
    }
}

fn check_size(request: &RequestHeader, limits: RequestLimits) -> Result<(), Rejection> {
    // Lengths in memory fit into 64 bits.
    let target = request.raw_path().len() as u64;
    if target > limits.target_size {
        return Err(Rejection::TargetTooLong);
    }
    if request.headers.len() > limits.header_count {
        return Err(Rejection::HeaderTooLarge);
    }
    // Name, colon, space, value, line end: what a field takes on the wire of HTTP/1.1.
    let fields: usize = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if target + fields as u64 > limits.header_size {
        return Err(Rejection::HeaderTooLarge);
    }
    Ok(())
}

/// What the listener checks on HTTP/1 holds for HTTP/2 too, whose requests come here unseen.
fn check_form(request: &RequestHeader) -> Result<(), Refusal> {
    let mut named = request.headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    if named.any(|value| !value.split(',').map(str::trim).all(headers::may_nominate)) {
        return Err(Refusal::bad_request("a field in Connection that is not the connection's"));
    }
    if request.version != Version::HTTP_2 {
        return Ok(());
    }
    if request.method == Method::CONNECT || request.method == Method::TRACE {
        return Err(Refusal { rejection: Rejection::MethodNotAllowed, detail: "CONNECT or TRACE" });
    }
    check_authority(host(request).unwrap_or_default().as_bytes())?;
    if !matches!(request.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Refusal::bad_request("a scheme other than http and https"));
    }
    if request.uri.path() == "*" && request.method != Method::OPTIONS {
        return Err(Refusal::bad_request("the target * without OPTIONS"));
    }
    if request.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::bad_request("more than one Content-Length"));
    }
    let mut expectations = request.headers.get_all(header::EXPECT).iter();
    if expectations.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let detail = "an expectation other than one 100-continue";
        return Err(Refusal { rejection: Rejection::ExpectationFailed, detail });
    }
    Ok(())
}

/// Brings the path into the one form that is routed, logged and forwarded alike, and the target into
/// origin form. Returns the escapes that not every route allows.
fn normalise(request: &mut RequestHeader) -> Result<Encoded, Refusal> {
    if request.version == Version::HTTP_2 {
        target::check(request.raw_path())?;
    }
    let normalised = target::normalise(request.uri.path())?;
    let encoded = normalised.encoded;
    let changed = match normalised.path {
        Cow::Owned(path) => Some(path),
        Cow::Borrowed(path) if request.raw_path().starts_with(path.as_bytes()) => None,
        Cow::Borrowed(path) => Some(path.to_owned()),
    };
    if let Some(path) = changed {
        let mut parts = request.uri.clone().into_parts();
        let target = match request.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let malformed = || Refusal::bad_request("a path that cannot be normalised");
        parts.path_and_query = Some(target.try_into().map_err(|_| malformed())?);
        request.set_uri(http::Uri::from_parts(parts).map_err(|_| malformed())?);
    }
    Ok(encoded)
}

/// A request for a host that has nothing to do with its TLS connection was meant for another one
/// (RFC 9110 §7.4).
fn check_direction(session: &Session, request: &RequestHeader) -> Result<(), Rejection> {
    let established = session.as_downstream().digest().and_then(Established::of);
    match (established, host(request)) {
        (Some(established), Some(host)) if !established.may_serve(host) => Err(Rejection::Misdirected),
        _ => Ok(()),
    }
}

/// The host asked for: `:authority` of HTTP/2 and the absolute form, else `Host`.
pub(super) fn host(request: &RequestHeader) -> Option<&str> {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| request.headers.get(header::HOST)?.to_str().ok())
}

fn announced_body(request: &RequestHeader) -> Option<u64> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}
