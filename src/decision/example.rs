//! An example request, as in a configuration test or `l7lb explain`, such as `GET https://example.com/api`, and
//! its outcome.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::filter_explanation::{FilterEffect, FilterEffects};
use super::own_response::OwnResponse;
use super::{ConnectionFacts, Decision, Origin, decide_observed, filter_explanation, form};
use crate::config::listener;
use crate::decision::snapshot::Snapshot;
use crate::filter::LocalResponse;
use crate::http::h1::{HeadReader, encode_target, parse_request};
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::http::request_limits::RequestLimits;
use crate::limit::{self, Limiter};
use crate::listener::address::ListenAddress;
use crate::tls;

/// The default client address of an example: an address for documentation (RFC 5737), trusted by no
/// configuration.
pub const EXAMPLE_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// An example request.
#[derive(Clone, Debug)]
pub struct ExampleRequest {
    method: Method,
    secure: bool,
    /// The port that it is sent to, independent of Host.
    port: Option<u16>,
    authority: String,
    /// The server name in the TLS handshake.
    server_name: Option<String>,
    target: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    from: IpAddr,
}

/// An example request in a call of the API or the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExampleQuery {
    /// A method (default GET) and a URL, such as `GET https://example.com/api`.
    pub request: String,
    /// Its headers, each a name and a value.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The address of the peer; default 192.0.2.1.
    #[serde(default)]
    pub from: Option<IpAddr>,
}

impl ExampleQuery {
    /// Parses the example request.
    ///
    /// # Errors
    /// Why it is not a valid request.
    pub fn example(&self) -> Result<ExampleRequest, String> {
        let example = ExampleRequest::parse(&self.request)?.from(self.from.unwrap_or(EXAMPLE_CLIENT));
        self.headers.iter().try_fold(example, |example, (name, value)| example.with_header(name, value))
    }
}

/// The outcome of an example request.
pub struct Outcome {
    /// The client address: the peer, or the client named by a trusted proxy.
    pub client: IpAddr,
    /// The request with its normalised path, if it could be parsed.
    pub request: Option<RequestHeader>,
    /// The limits that count it, in order.
    pub limits: Vec<EvaluatedLimit>,
    /// The route or the rejection.
    pub decision: Decision,
    /// The response of l7lb itself, if it is no rejection.
    pub own_response: Option<OwnResponse>,
    /// The filters that run, in order.
    pub filters: Vec<FilterEffect>,
    /// The header of the response as far as filters determine it: that of a response by l7lb itself, or what filters set
    /// in an empty one of a backend.
    pub response: Option<(StatusCode, HeaderMap)>,
}

impl Outcome {
    /// The outcome of a request from `client` before any decision.
    fn of(client: IpAddr) -> Self {
        let decision = Decision { route: None, rejection: None, filtered: None };
        let (limits, filters) = (Vec::new(), Vec::new());
        Self { client, request: None, limits, decision, own_response: None, filters, response: None }
    }

    /// The response of a filter.
    #[must_use]
    pub fn local_response(&self) -> Option<&LocalResponse> {
        self.decision.filtered.as_ref()?.response.as_deref()
    }

    /// The request as backends get it, as far as filters determine it; `None` if it is not forwarded.
    #[must_use]
    pub fn forwarded(&self) -> Option<RequestHeader> {
        let mut request = self.request.clone()?;
        if self.decision.rejection.is_some() || self.own_words().is_some() {
            return None;
        }
        if let Some(filtered) = &self.decision.filtered {
            let mut changes = filtered.changes.clone();
            let mut parts: http::request::Parts = request.into();
            changes.apply_fields(&mut parts.headers);
            changes.apply_target(&mut parts.uri, &mut parts.headers);
            request = parts.into();
        }
        Some(request)
    }

    /// The response of l7lb itself that is no rejection, as part of a sentence.
    #[must_use]
    pub fn own_words(&self) -> Option<String> {
        let local = self.local_response().map(LocalResponse::words);
        local.or_else(|| self.own_response.map(|own| own.words().to_owned()))
    }
}

/// A limit that counts an example request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluatedLimit {
    /// The limit.
    pub spec: limit::Spec,
    /// Its verdict; `None` if limits are not evaluated.
    pub verdict: Option<limit::Verdict>,
}

impl ExampleRequest {
    /// Parses a method (default GET) and a URL. The target is not checked: it may be invalid.
    ///
    /// # Errors
    /// Why it is not a valid request.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (method, url) = match words.as_slice() {
            [url] => ("GET", *url),
            [method, url] => (*method, *url),
            _ => return Err(format!("`{text}` is not a method and a URL")),
        };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is not a method"))?;
        let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(format!("`{url}` starts with neither https:// nor http://")),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let port = match authority.rsplit_once(':') {
            Some((_, digits)) if !digits.ends_with(']') => digits.parse().ok(),
            _ => Some(if secure { 443 } else { 80 }),
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            method,
            secure,
            port,
            server_name: server_name(authority),
            authority: authority.to_owned(),
            target: format!("{slash}{target}"),
            headers: Vec::new(),
            from: EXAMPLE_CLIENT,
        })
    }

    /// Adds a header. `Host` replaces the host of the URL, but not the server name of TLS.
    ///
    /// # Errors
    /// Why it is not a valid header.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, String> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header name"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| format!("`{name}` has an invalid value"))?;
        if name == header::HOST {
            value.to_str().map_err(|e| e.to_string())?.clone_into(&mut self.authority);
        } else {
            self.headers.push((name, value));
        }
        Ok(self)
    }

    /// Sets the peer.
    #[must_use]
    pub fn from(self, peer: IpAddr) -> Self {
        Self { from: peer, ..self }
    }

    /// The outcome, by the functions that serve traffic: the listener's parser, then [`decide`](super::decide). Limits are not
    /// evaluated.
    #[must_use]
    pub fn outcome(&self, snapshot: &Snapshot, listeners: &[listener::Spec]) -> Outcome {
        self.outcome_with_limits(snapshot, listeners, |limiter| {
            (EvaluatedLimit { spec: *limiter.spec(), verdict: None }, Ok(()))
        })
    }

    /// The outcome with limits evaluated by `evaluate`.
    pub(super) fn outcome_with_limits(
        &self,
        snapshot: &Snapshot,
        listeners: &[listener::Spec],
        evaluate: impl Fn(&Limiter) -> (EvaluatedLimit, Result<(), Rejection>),
    ) -> Outcome {
        let client = self.client(snapshot);
        let mut limits = Vec::new();
        let listener = self.listener(listeners);
        let name = listener.map(|listener| Arc::clone(&listener.policy.listener)).unwrap_or_default();
        let mut request = match self.request(&snapshot.request_limits) {
            Ok(request) => request,
            Err(rejection) => {
                let decision = Decision { route: None, rejection: Some(rejection), filtered: None };
                return Outcome { decision, ..Outcome::of(client) };
            }
        };
        let health = listener.and_then(|listener| OwnResponse::to_health_check(&listener.policy.health, &request));
        if health.is_some() {
            return Outcome { request: Some(request), own_response: health, ..Outcome::of(client) };
        }
        let origin = self.origin(snapshot, &name);
        let facts = (self.connection_facts(listener), &origin);
        let count = |limiter: &Limiter| {
            let (evaluated, result) = evaluate(limiter);
            limits.push(evaluated);
            result
        };
        let mut effects = FilterEffects::default();
        let decision = decide_observed(snapshot, &mut request, facts, count, &mut |level, item, step, changes| {
            effects.add(level, item, step, changes);
        });
        let response = filter_explanation::response(snapshot, &request, &origin, &decision);
        self.set_scheme(&mut request, snapshot);
        let responds = decision.filtered.as_ref().is_some_and(|filtered| filtered.response.is_some());
        let is_forwarded = decision.rejection.is_none() && !responds;
        let own_response = OwnResponse::to_last_recipient(&request).filter(|_| is_forwarded);
        let (request, filters) = (Some(request), effects.list);
        Outcome { client, request, limits, decision, own_response, filters, response }
    }

    /// Where the request comes from.
    pub(super) fn origin<'a>(&'a self, snapshot: &Snapshot, listener: &'a str) -> Origin<'a> {
        Origin {
            client: self.client(snapshot),
            peer: (self.from, snapshot.trusted_proxies.contains(self.from)),
            is_tls: self.secure,
            listener,
            request_id: "example",
            server_name: self.server_name.as_deref().filter(|_| self.secure),
            client_certificate: None,
            is_example: true,
        }
    }

    /// Sets the scheme in the request as it is forwarded: the key of the cache has it.
    fn set_scheme(&self, request: &mut RequestHeader, snapshot: &Snapshot) {
        let own = if self.secure { "https" } else { "http" };
        let proxies = &snapshot.trusted_proxies;
        let peer = (self.from, proxies.contains(self.from));
        if let Some(scheme) = form::new_scheme(proxies, peer, &request.headers, own) {
            // The name and the value are legal.
            request.insert_header(form::X_FORWARDED_PROTO, scheme).ok();
        }
    }

    /// The client address: the peer, or the client named by a trusted proxy.
    pub(super) fn client(&self, snapshot: &Snapshot) -> IpAddr {
        snapshot.trusted_proxies.client(self.from, &self.headers.iter().cloned().collect())
    }

    /// The request as the listener passes it on.
    fn request(&self, limits: &RequestLimits) -> Result<RequestHeader, DetailedRejection> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.authority).into_bytes();
        for (name, value) in &self.headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        head.extend_from_slice(b"\r\n");
        let incomplete = DetailedRejection::bad_request("the request cannot be parsed");
        let mut parsed = HeadReader::default().inspect(&head, limits)?.ok_or(incomplete)?;
        let bytes = if parsed.encode_target { encode_target(&head, &mut parsed)?.freeze() } else { head.into() };
        parse_request(&bytes, &parsed)
    }

    /// The request with its normalised path, as [`decide`](super::decide) matches it.
    ///
    /// # Errors
    /// If the request is malformed.
    pub fn normalised(&self, limits: &RequestLimits) -> Result<RequestHeader, DetailedRejection> {
        let mut request = self.request(limits)?;
        form::check(&request)?;
        form::normalise(&mut request)?;
        Ok(request)
    }

    /// The listener that the request would reach: the one with its port, otherwise the first one with the same
    /// scheme.
    fn listener<'a>(&self, listeners: &'a [listener::Spec]) -> Option<&'a listener::Spec> {
        let alike = || listeners.iter().filter(|listener| listener.tls.is_some() == self.secure);
        let has_port = |listener: &&listener::Spec| {
            listener
                .addresses
                .iter()
                .any(|address| matches!(address, ListenAddress::Inet(inet) if Some(inet.port()) == self.port))
        };
        alike().find(has_port).or_else(|| alike().next())
    }

    /// The server name of the TLS handshake is the host of the URL, independent of `Host`.
    fn connection_facts(&self, listener: Option<&listener::Spec>) -> ConnectionFacts {
        let serves = |tls: &tls::Settings| tls.may_serve(self.server_name.as_deref(), &self.authority);
        ConnectionFacts {
            misdirected: listener.and_then(|listener| listener.tls.as_ref()).is_some_and(|tls| !serves(tls)),
            https_required: listener.is_some_and(|listener| listener.policy.redirect_to_https.is_some()),
        }
    }
}

/// The server name of a TLS client for `authority`; `None` for an IP address (RFC 6066 §3).
fn server_name(authority: &str) -> Option<String> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let is_name = !host.is_empty() && !host.starts_with('[') && host.parse::<IpAddr>().is_err();
    is_name.then(|| host.trim_end_matches('.').to_ascii_lowercase())
}
