//! Texts with variables, such as `https://${request.host}/new`.
//!
//! `$${` is a literal `${`. A variable without a value is empty. Values come from parsed requests, so they contain neither
//! CR, LF nor NUL.

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora_http::RequestHeader;

use super::request::{Facts, Request};
use super::response::Response;
use crate::base::fault::{Faults, Place, nearest};
use crate::base::template_text::{self, Part};
use crate::routing::affinity::cookie_value;

/// The variables without a name of their own, as they are written.
const NAMES: [&str; 16] = [
    "client.ip",
    "request.id",
    "request.method",
    "request.scheme",
    "request.host",
    "request.authority",
    "request.path",
    "request.query",
    "request.uri",
    "route",
    "tls.server_name",
    "tls.client.subject",
    "tls.client.fingerprint",
    "upstream.address",
    "upstream.pool",
    "response.status",
];

/// The variables with a name at their end.
const PREFIXES: [&str; 4] = ["request.header.", "request.cookie.", "request.query.", "response.header."];

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    /// One of [`NAMES`], by its index.
    Plain(usize),
    RequestHeader(HeaderName),
    Cookie(String),
    Parameter(String),
    ResponseHeader(HeaderName),
}

impl FromStr for Variable {
    type Err = (String, String);

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if let Some(index) = NAMES.iter().position(|known| *known == name) {
            return Ok(Self::Plain(index));
        }
        let header = |field: &str| {
            HeaderName::from_bytes(field.as_bytes())
                .map_err(|_| (format!("`{field}` is not a header name"), "write for example `X-Tenant`".to_owned()))
        };
        let after = |prefix: &str| name.strip_prefix(prefix).filter(|rest| !rest.is_empty());
        if let Some(field) = after("request.header.") {
            return header(field).map(Self::RequestHeader);
        }
        if let Some(field) = after("response.header.") {
            return header(field).map(Self::ResponseHeader);
        }
        if let Some(cookie) = after("request.cookie.") {
            return Ok(Self::Cookie(cookie.to_owned()));
        }
        if let Some(parameter) = after("request.query.") {
            return Ok(Self::Parameter(parameter.to_owned()));
        }
        let near = nearest(name, NAMES.into_iter().chain(PREFIXES));
        let hint = near.map_or_else(
            || format!("known: {}, and {}NAME", NAMES.join(", "), PREFIXES.join("NAME, ")),
            |near| format!("did you mean `{near}{}`?", if near.ends_with('.') { "NAME" } else { "" }),
        );
        Err((format!("there is no variable `{name}`"), hint))
    }
}

impl Variable {
    /// The variable as it is written, unless the requested URL determines its value.
    fn beyond_the_url(&self) -> Option<String> {
        let name = match self {
            Self::Plain(index) => NAMES.get(*index).copied().unwrap_or_default().to_owned(),
            Self::RequestHeader(name) => format!("request.header.{name}"),
            Self::Cookie(name) => format!("request.cookie.{name}"),
            Self::ResponseHeader(name) => format!("response.header.{name}"),
            Self::Parameter(_) => return None,
        };
        let is_of_url = matches!(
            name.as_str(),
            "request.scheme"
                | "request.host"
                | "request.authority"
                | "request.path"
                | "request.query"
                | "request.uri"
                | "route"
        );
        (!is_of_url).then_some(name)
    }

    fn is_of_response(&self) -> bool {
        let prefixes = ["upstream.", "response."];
        match self {
            Self::Plain(index) => NAMES.get(*index).is_some_and(|name| prefixes.iter().any(|it| name.starts_with(it))),
            Self::ResponseHeader(_) => true,
            _ => false,
        }
    }
}

/// A text with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part<Variable>>,
}

/// Which variables a template may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of the request.
    Request,
    /// Those of the request and of the response.
    Response,
}

impl Template {
    /// Parses a text; a fault is reported at `place`.
    pub fn check(text: &str, scope: Scope, place: &Place, faults: &mut Faults) -> Option<Self> {
        match Self::parse(text) {
            Ok(template) if scope == Scope::Request && template.is_of_response() => {
                let problem = format!("`{text}` uses the response, which does not exist yet");
                faults.add(place.clone(), problem, "use variables of the request");
                None
            }
            Ok(template) => Some(template),
            Err((problem, hint)) => {
                faults.add(place.clone(), problem, hint);
                None
            }
        }
    }

    fn parse(text: &str) -> Result<Self, (String, String)> {
        let parts = template_text::parse(text, str::parse)?;
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The text, if it has no variables.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The texts between the variables.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Variable(_) => None,
        })
    }

    /// The first variable whose value the requested URL does not determine, as it is written.
    #[must_use]
    pub fn beyond_the_url(&self) -> Option<String> {
        self.parts.iter().find_map(|part| match part {
            Part::Variable(variable) => variable.beyond_the_url(),
            Part::Text(_) => None,
        })
    }

    fn is_of_response(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(variable) if variable.is_of_response()))
    }

    /// The text with the values of a request.
    #[must_use]
    pub fn render(&self, values: &Values<'_>) -> Vec<u8> {
        let mut rendered = Vec::with_capacity(self.text.len());
        for part in &self.parts {
            match part {
                Part::Text(text) => rendered.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => values.add(variable, &mut rendered),
            }
        }
        rendered
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A header value: constant, or with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Always the same.
    Constant(HeaderValue),
    /// Made for each message.
    Template(Template),
}

impl Value {
    /// Parses a header value; a fault is reported at `place`.
    pub fn check(text: &str, scope: Scope, place: &Place, faults: &mut Faults) -> Option<Self> {
        let template = Template::check(text, scope, place, faults)?;
        if template.literals().any(|text| HeaderValue::from_str(text).is_err()) {
            let problem = "a header value has visible ASCII characters, spaces and tabs only";
            faults.add(place.clone(), problem, "remove line breaks and other characters");
            return None;
        }
        Some(match template.literal().and_then(|text| HeaderValue::from_str(text.trim()).ok()) {
            Some(constant) => Self::Constant(constant),
            None => Self::Template(template),
        })
    }

    /// The value for a message.
    #[must_use]
    pub fn render(&self, values: &Values<'_>) -> HeaderValue {
        match self {
            Self::Constant(value) => value.clone(),
            // Values of a parsed message are legal in a header; anything else is left out.
            Self::Template(template) => HeaderValue::from_maybe_shared(bytes::Bytes::from(template.render(values)))
                .unwrap_or(HeaderValue::from_static("")),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(value) => f.write_str(&String::from_utf8_lossy(value.as_bytes())),
            Self::Template(template) => template.fmt(f),
        }
    }
}

/// Where the values of variables come from.
pub struct Values<'a> {
    request: &'a RequestHeader,
    facts: &'a Facts<'a>,
    path_and_query: &'a str,
    response: Option<ResponseValues<'a>>,
}

struct ResponseValues<'a> {
    status: StatusCode,
    headers: &'a HeaderMap,
    upstream: &'a str,
    pool: &'a str,
}

impl<'a> Values<'a> {
    /// The values of a request.
    #[must_use]
    pub fn of_request(request: &'a Request<'_>) -> Self {
        let target = request.header.uri.path_and_query();
        let path_and_query = target.map_or("/", http::uri::PathAndQuery::as_str);
        Self { request: request.header, facts: request.facts, path_and_query, response: None }
    }

    /// The values of a response and its request.
    #[must_use]
    pub fn of_response(response: &'a Response<'_>) -> Self {
        let values = ResponseValues {
            status: *response.status,
            headers: response.headers,
            upstream: response.upstream,
            pool: response.pool,
        };
        Self {
            request: response.request,
            facts: response.facts,
            path_and_query: response.path_and_query,
            response: Some(values),
        }
    }

    fn add(&self, variable: &Variable, to: &mut Vec<u8>) {
        match variable {
            Variable::Plain(index) => self.add_plain(NAMES.get(*index).copied().unwrap_or_default(), to),
            Variable::RequestHeader(name) => add_field(&self.request.headers, name, to),
            Variable::Cookie(name) => {
                to.extend_from_slice(cookie_value(&self.request.headers, name).unwrap_or_default().as_bytes());
            }
            Variable::Parameter(name) => {
                let mut parameters = self.query().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                let value = parameters.find(|(key, _)| key == name).map(|(_, value)| value);
                to.extend_from_slice(value.unwrap_or_default().as_bytes());
            }
            Variable::ResponseHeader(name) => {
                if let Some(response) = &self.response {
                    add_field(response.headers, name, to);
                }
            }
        }
    }

    fn path(&self) -> &'a str {
        self.path_and_query.split_once('?').map_or(self.path_and_query, |(path, _)| path)
    }

    fn query(&self) -> &'a str {
        self.path_and_query.split_once('?').map_or("", |(_, query)| query)
    }

    fn add_plain(&self, name: &str, to: &mut Vec<u8>) {
        let certificate = self.facts.client_certificate;
        let response = self.response.as_ref();
        let value = match name {
            "client.ip" => return to.extend_from_slice(self.facts.client.to_string().as_bytes()),
            "response.status" => {
                return to.extend_from_slice(response.map_or("", |response| response.status.as_str()).as_bytes());
            }
            "tls.client.subject" => {
                return to.extend_from_slice(certificate.map_or(&b""[..], |known| known.subject.as_bytes()));
            }
            "tls.client.fingerprint" => {
                return to.extend_from_slice(certificate.map_or(&b""[..], |known| known.fingerprint.as_bytes()));
            }
            "request.id" => self.facts.request_id,
            "request.method" => self.request.method.as_str(),
            "request.scheme" => self.facts.scheme,
            "request.host" => without_port(self.facts.host),
            "request.authority" => self.facts.host,
            "request.path" => self.path(),
            "request.query" => self.query(),
            "request.uri" => self.path_and_query,
            "route" => self.facts.route,
            "tls.server_name" => self.facts.server_name.unwrap_or_default(),
            "upstream.address" => response.map_or("", |response| response.upstream),
            "upstream.pool" => response.map_or("", |response| response.pool),
            _ => "",
        };
        to.extend_from_slice(value.as_bytes());
    }
}

fn add_field(headers: &HeaderMap, name: &HeaderName, to: &mut Vec<u8>) {
    to.extend_from_slice(headers.get(name).map_or(&b""[..], HeaderValue::as_bytes));
}

/// The host of an authority, without its port.
#[must_use]
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
#[path = "variables_tests.rs"]
pub(super) mod tests;
