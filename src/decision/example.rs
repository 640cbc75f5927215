//! A request that nobody has sent: as a test of the configuration or `l7lb explain` has it, such as
//! `GET https://example.com/api`, and what would become of it.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderName, HeaderValue, Method, Version, header};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::X_FORWARDED_FOR;
use super::{Decision, Door, decide};
use crate::config::listener;
use crate::decision::snapshot::Snapshot;
use crate::http::h1::HeadReader;
use crate::http::rejection::{Refusal, Rejection};
use crate::http::request_limits::RequestLimits;
use crate::limit::{self, Limiter};
use crate::listener::address::ListenAddress;
use crate::tls;

/// Who sends an example unless told: an address for documentation (RFC 5737), trusted by nobody.
pub const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A request as it would be sent.
#[derive(Clone, Debug)]
pub struct Example {
    method: Method,
    secure: bool,
    /// Where it is sent to, whatever its Host says.
    port: Option<u16>,
    authority: String,
    /// What is asked for in the TLS handshake.
    server_name: Option<String>,
    target: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    from: IpAddr,
}

/// An example, as somebody asks about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// A method (GET unless told) and a URL, such as `GET https://example.com/api`.
    pub request: String,
    /// Its header fields, each a name and a value.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The address of the peer that sends it; 192.0.2.1 unless told.
    #[serde(default)]
    pub from: Option<IpAddr>,
}

impl Question {
    /// The request that is meant.
    ///
    /// # Errors
    /// In words, what is no request.
    pub fn example(&self) -> Result<Example, String> {
        let example = Example::parse(&self.request)?.from(self.from.unwrap_or(SOMEBODY));
        self.headers.iter().try_fold(example, |example, (name, value)| example.with_header(name, value))
    }
}

/// What would become of an example.
pub struct Outcome {
    /// Who the request is from: its peer, or what a trusted proxy says.
    pub client: IpAddr,
    /// The request with its path in the one form, where it could be read at all.
    pub request: Option<RequestHeader>,
    /// The limits that count it, in their order.
    pub limits: Vec<Asked>,
    /// Whether a route takes it, or why not.
    pub decision: Decision,
}

/// A limit that counts an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The limit.
    pub spec: limit::Spec,
    /// What it says; nothing where it was not asked, and so refuses nothing.
    pub verdict: Option<limit::Verdict>,
}

impl Example {
    /// Reads a method (GET unless told) and a URL. The target is taken as it stands: it may be wrong.
    ///
    /// # Errors
    /// In words, what is no request.
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
            _ => return Err(format!("`{url}` begins with neither https:// nor http://")),
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
            from: SOMEBODY,
        })
    }

    /// The same with a further header field. `Host` stands in the place of the URL's, which TLS is asked for
    /// all the same.
    ///
    /// # Errors
    /// In words, what is no header field.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, String> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header's name"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| format!("`{name}` has a value that is none"))?;
        if name == header::HOST {
            value.to_str().map_err(|e| e.to_string())?.clone_into(&mut self.authority);
        } else {
            self.headers.push((name, value));
        }
        Ok(self)
    }

    /// The same from this peer.
    #[must_use]
    pub fn from(self, peer: IpAddr) -> Self {
        Self { from: peer, ..self }
    }

    /// What becomes of it, by the functions that serve traffic: the listener's reader, then [`decide`]. Limits
    /// are not asked.
    #[must_use]
    pub fn outcome(&self, snapshot: &Snapshot, listeners: &[listener::Spec]) -> Outcome {
        self.outcome_by(snapshot, listeners, |limiter| (Asked { spec: *limiter.spec(), verdict: None }, Ok(())))
    }

    /// The same with limits that are asked by `ask`.
    pub(super) fn outcome_by(
        &self,
        snapshot: &Snapshot,
        listeners: &[listener::Spec],
        ask: impl Fn(&Limiter) -> (Asked, Result<(), Rejection>),
    ) -> Outcome {
        let client = self.client(snapshot);
        let mut limits = Vec::new();
        let (request, decision) = match self.request(&snapshot.request_limits) {
            Err(refusal) => (None, Decision { route: None, refusal: Some(refusal) }),
            Ok(mut request) => {
                let decision = decide(snapshot, &mut request, self.door(listeners), |limiter| {
                    let (asked, answer) = ask(limiter);
                    limits.push(asked);
                    answer
                });
                (Some(request), decision)
            }
        };
        Outcome { client, request, limits, decision }
    }

    /// Who it is from: its peer, or what a trusted proxy says.
    pub(super) fn client(&self, snapshot: &Snapshot) -> IpAddr {
        let forwarded = self.headers.iter().filter(|(name, _)| *name == X_FORWARDED_FOR);
        snapshot.trusted_proxies.client(self.from, forwarded.filter_map(|(_, value)| value.to_str().ok()))
    }

    /// The request as a listener hands it on.
    fn request(&self, limits: &RequestLimits) -> Result<RequestHeader, Refusal> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.authority).into_bytes();
        for (name, value) in &self.headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        head.extend_from_slice(b"\r\n");
        HeadReader::default().inspect(&head, limits)?;
        let malformed = |_| Refusal::bad_request("a request that cannot be read");
        let mut request = RequestHeader::build(self.method.clone(), self.target.as_bytes(), None).map_err(malformed)?;
        request.set_version(Version::HTTP_11);
        request.append_header(header::HOST, self.authority.as_str()).map_err(malformed)?;
        for (name, value) in &self.headers {
            request.append_header(name.clone(), value.clone()).map_err(malformed)?;
        }
        Ok(request)
    }

    /// The listener that it would come to: of its port, else the first that speaks as it does. In its TLS
    /// handshake a client asks for the host of the URL, whatever `Host` says.
    fn door(&self, listeners: &[listener::Spec]) -> Door {
        let alike = || listeners.iter().filter(|listener| listener.tls.is_some() == self.secure);
        let has_port = |listener: &&listener::Spec| {
            listener
                .addresses
                .iter()
                .any(|address| matches!(address, ListenAddress::Inet(inet) if Some(inet.port()) == self.port))
        };
        let listener = alike().find(has_port).or_else(|| alike().next());
        let serves = |tls: &tls::Settings| tls.may_serve(self.server_name.as_deref(), &self.authority);
        Door {
            misdirected: listener.and_then(|listener| listener.tls.as_ref()).is_some_and(|tls| !serves(tls)),
            https_required: listener.is_some_and(|listener| listener.policy.redirect_to_https.is_some()),
        }
    }
}

/// The server name that a client asks for to reach `authority`: none for an address (RFC 6066 §3).
fn server_name(authority: &str) -> Option<String> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let is_name = !host.is_empty() && !host.starts_with('[') && host.parse::<IpAddr>().is_err();
    is_name.then(|| host.trim_end_matches('.').to_ascii_lowercase())
}
