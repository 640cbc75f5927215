//! `redirect`: sends the client to another URL.
//!
//! A redirect to the URL that the client requested would never end, so such a request passes.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{Configuration, Surroundings};
use super::variables::{Scope, Template, Values, without_port};
use super::{Filter, LocalResponse, Request, Step};
use crate::base::cause::Cause;
use crate::base::fault::{Faults, Place};
use crate::http::rejection::DetailedRejection;
use crate::http::target;

/// Configuration of the filter. Parts that are not given stay as requested.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The whole URL, with variables. Not with `scheme`, `host`, `port`, `path`, `query` or `www`.
    pub to: Option<String>,
    /// The scheme.
    pub scheme: Option<Scheme>,
    /// The host, with variables.
    pub host: Option<String>,
    /// The port. Without it: the default port of the scheme if `scheme` or `host` is given, otherwise the requested one.
    pub port: Option<u16>,
    /// The path, with variables.
    pub path: Option<String>,
    /// Whether the query stays; true by default.
    pub query: Option<bool>,
    /// Adds `www.` to a host without it, or removes it; other hosts pass.
    pub www: Option<Www>,
    /// The status code: 301, 302, 303, 307 or 308. 301 and 308 are permanent: browsers remember them.
    pub status: Option<u16>,
}

/// A scheme of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// What happens to `www.` at the start of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Www {
    /// It is added.
    Add,
    /// It is removed.
    Remove,
}

const WWW: &str = "www.";
/// The default status code: temporary, so that a mistake can be corrected.
const STATUS: u16 = 302;
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        let status = self.status.unwrap_or(STATUS);
        if !STATUSES.contains(&status) {
            let hint = "write 301 or 308 (permanent), 302 or 307 (temporary), or 303 (continue with GET)";
            faults.add(place.key("status"), format!("{status} is not a redirect"), hint);
        }
        let parts = Config { to: None, status: None, ..self.clone() } != Config::default();
        match (&self.to, parts) {
            (Some(_), true) => {
                faults.add(place.key("to"), "`to` is the whole URL", "remove the other keys, or write them instead");
            }
            (None, false) => faults.add(
                place.clone(),
                "the redirect has no target",
                "write for example `to: https://example.com${request.uri}`, or `scheme: https`",
            ),
            _ => {}
        }
        if self.www.is_some() && self.host.is_some() {
            faults.add(place.key("www"), "`host` is the whole host", "remove `www` or `host`");
        }
        let mut template = |key: &str, text: &Option<String>| {
            text.as_ref().and_then(|text| Template::check(text, Scope::Request, &place.key(key), faults))
        };
        let (to, host, path) = (template("to", &self.to), template("host", &self.host), template("path", &self.path));
        if let Some(literal) = path.as_ref().and_then(Template::literal)
            && !literal.starts_with('/')
        {
            faults.add(place.key("path"), format!("`{literal}` is not a path"), "start it with a slash");
        }
        if let Some(literal) = host.as_ref().and_then(Template::literal)
            && literal.parse::<Authority>().is_err()
        {
            faults.add(place.key("host"), format!("`{literal}` is not a host"), "write for example example.com");
        }
        let status = StatusCode::from_u16(status).ok()?;
        let (scheme, port, www) = (self.scheme, self.port, self.www);
        Some(Arc::new(Redirect { to, scheme, host, port, path, keep_query: self.query.unwrap_or(true), www, status }))
    }
}

#[derive(Debug)]
struct Redirect {
    to: Option<Template>,
    scheme: Option<Scheme>,
    host: Option<Template>,
    port: Option<u16>,
    path: Option<Template>,
    keep_query: bool,
    www: Option<Www>,
    status: StatusCode,
}

impl Redirect {
    /// The URL; `None` if the filter does not apply to the request.
    fn location(&self, request: &Request<'_>) -> Option<String> {
        let text =
            |template: &Template| String::from_utf8_lossy(&template.render(&Values::of_request(request))).into_owned();
        if let Some(to) = &self.to {
            return Some(text(to));
        }
        let requested = request.facts.host;
        let host = match (&self.host, self.www) {
            (Some(host), _) => text(host),
            (None, None) => without_port(requested).to_owned(),
            (None, Some(www)) => with_www(without_port(requested), www)?,
        };
        let scheme = match self.scheme {
            Some(Scheme::Http) => "http",
            Some(Scheme::Https) => "https",
            None => request.facts.scheme,
        };
        let moved = self.scheme.is_some() || self.host.is_some();
        let port = self.port.or_else(|| if moved { None } else { port_of(requested) });
        let port =
            port.filter(|port| *port != default_port(scheme)).map_or_else(String::new, |port| format!(":{port}"));
        let path = self.path.as_ref().map_or_else(|| request.uri().path().to_owned(), text);
        let query = request.uri().query().filter(|_| self.keep_query && !path.contains('?'));
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        Some(format!("{scheme}://{host}{port}{path}{query}"))
    }

    /// Whether the location is the URL that the client requested.
    fn is_requested(location: &str, request: &Request<'_>) -> bool {
        let Some((scheme, rest)) = location.split_once("://") else { return location == requested_uri(request) };
        let (authority, target) =
            rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len())).unwrap_or((rest, ""));
        let same_port = |authority: &str| port_of(authority).unwrap_or(default_port(scheme));
        let requested = request.facts.host;
        scheme.eq_ignore_ascii_case(request.facts.scheme)
            && without_port(authority).eq_ignore_ascii_case(without_port(requested))
            && same_port(authority) == same_port(requested)
            && (target == requested_uri(request) || target.is_empty() && requested_uri(request) == "/")
    }
}

fn requested_uri<'a>(request: &'a Request<'_>) -> &'a str {
    request.uri().path_and_query().map_or("/", PathAndQuery::as_str)
}

fn with_www(host: &str, www: Www) -> Option<String> {
    let bare = host.get(..WWW.len()).filter(|start| start.eq_ignore_ascii_case(WWW)).and(host.get(WWW.len()..));
    match (www, bare) {
        (Www::Remove, Some(bare)) => Some(bare.to_owned()),
        (Www::Add, None) if !host.is_empty() => Some(format!("{WWW}{host}")),
        _ => None,
    }
}

fn port_of(authority: &str) -> Option<u16> {
    authority.rsplit_once(':')?.1.parse().ok()
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

impl Filter for Redirect {
    fn request(&self, request: &mut Request<'_>) -> Step {
        let Some(location) = self.location(request) else { return Step::Continue };
        if Self::is_requested(&location, request) {
            return Step::Continue;
        }
        // Browsers read a URL that starts with several slashes as one of another host.
        let is_relative_to_scheme = location.starts_with("//") || location.starts_with("/\\");
        let encoded = target::encode_url(location.as_bytes());
        match HeaderValue::try_from(encoded) {
            Ok(value) if !is_relative_to_scheme => {
                let headers = HeaderMap::from_iter([(header::LOCATION, value)]);
                let body = Bytes::new();
                Step::Respond(Box::new(LocalResponse { cause: Cause::Redirect, status: self.status, headers, body }))
            }
            _ => Step::Reject(DetailedRejection::bad_request("the redirect of the request is not a URL")),
        }
    }

    fn describe(&self) -> String {
        let target = match (&self.to, self.www) {
            (Some(to), _) => to.to_string(),
            (None, Some(Www::Add)) => "the host with www.".to_owned(),
            (None, Some(Www::Remove)) => "the host without www.".to_owned(),
            (None, None) => {
                let parts = [
                    self.scheme
                        .map(|scheme| format!("scheme {}", if scheme == Scheme::Http { "http" } else { "https" })),
                    self.host.as_ref().map(|host| format!("host {host}")),
                    self.port.map(|port| format!("port {port}")),
                    self.path.as_ref().map(|path| format!("path {path}")),
                    (!self.keep_query).then(|| "no query".to_owned()),
                ];
                parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
            }
        };
        format!("{} to {target}", self.status.as_u16())
    }

    fn may_respond(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Changes;
    use crate::filter::variables::tests::{facts, request};

    /// The location for a request; `None` if it passes.
    fn location(config: &str, scheme: &str, host: &str, target: &str) -> Option<String> {
        let config: Config = serde_json::from_str(config).unwrap();
        let mut faults = Faults::default();
        let filter = config.check(&Place::root(), &Surroundings::default(), &mut faults).unwrap();
        assert!(faults.is_empty(), "{faults:?}");
        let (header, facts, mut changes) = (request(target, &[]), facts(host, scheme), Changes::default());
        match filter.request(&mut Request { header: &header, facts: &facts, changes: &mut changes }) {
            Step::Respond(response) => Some(response.headers[header::LOCATION].to_str().unwrap().to_owned()),
            Step::Continue => None,
            _ => panic!("neither a response nor a pass"),
        }
    }

    #[test]
    fn given_parts_are_replaced_and_others_stay() {
        for (config, scheme, host, target, wanted) in [
            (r#"{"scheme":"https"}"#, "http", "a.test:8080", "/x?y=1", Some("https://a.test/x?y=1")),
            (r#"{"scheme":"https","port":8443}"#, "http", "a.test", "/", Some("https://a.test:8443/")),
            (r#"{"scheme":"https"}"#, "https", "a.test", "/x", None),
            (r#"{"www":"remove"}"#, "https", "WWW.a.test:8443", "/x?y", Some("https://a.test:8443/x?y")),
            (r#"{"www":"remove"}"#, "https", "a.test", "/x", None),
            (r#"{"www":"add"}"#, "http", "a.test", "/", Some("http://www.a.test/")),
            (r#"{"www":"add"}"#, "http", "www.a.test", "/", None),
            (r#"{"host":"b.test"}"#, "https", "a.test:8443", "/x", Some("https://b.test/x")),
            (r#"{"path":"/new${request.path}"}"#, "http", "a.test", "/x?y", Some("http://a.test/new/x?y")),
            (r#"{"path":"/new","query":false}"#, "http", "a.test", "/x?y", Some("http://a.test/new")),
            (r#"{"to":"https://b.test${request.uri}"}"#, "http", "a.test", "/x?y", Some("https://b.test/x?y")),
            (r#"{"to":"/moved"}"#, "http", "a.test", "/x", Some("/moved")),
            (r#"{"to":"/moved"}"#, "http", "a.test", "/moved", None),
            (r#"{"to":"http://a.test"}"#, "http", "a.test:80", "/", None),
        ] {
            assert_eq!(location(config, scheme, host, target).as_deref(), wanted, "{config} {scheme} {host} {target}");
        }
    }

    #[test]
    fn path_of_the_client_cannot_name_another_host() {
        let config: Config = serde_json::from_str(r#"{"to":"${request.path}/x"}"#).unwrap();
        let filter = config.check(&Place::root(), &Surroundings::default(), &mut Faults::default()).unwrap();
        let (header, facts, mut changes) = (request("//evil.test", &[]), facts("a.test", "http"), Changes::default());
        let step = filter.request(&mut Request { header: &header, facts: &facts, changes: &mut changes });
        assert!(matches!(step, Step::Reject(_)));
    }
}
