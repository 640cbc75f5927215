//! Lines by a template of the configuration, such as `${client.ip} "${request.method} ${request.path}"`.

use http::HeaderName;

use super::Record;
use super::escape::{push_escaped, text_of};
use super::fields::push_millis;
use super::layout::Layout;
use crate::base::cause::Cause;
use crate::base::fault::{Faults, Place, nearest};
use crate::base::template_text::{self, Part};
use crate::observe::digits::{ascii, rfc3339_millis};

/// The fields without a name of their own.
const NAMES: [(&str, Field); 21] = [
    ("time", Field::Time),
    ("client.ip", Field::Client),
    ("request.id", Field::RequestId),
    ("request.method", Field::Method),
    ("request.host", Field::Host),
    ("request.path", Field::Path),
    ("request.query", Field::Query),
    ("request.uri", Field::Uri),
    ("request.protocol", Field::Protocol),
    ("response.status", Field::Status),
    ("response.bytes", Field::Bytes),
    ("latency_ms", Field::Latency),
    ("upstream.address", Field::Upstream),
    ("upstream.pool", Field::Pool),
    ("upstream.latency_ms", Field::UpstreamLatency),
    ("attempts", Field::Attempts),
    ("failed_attempts", Field::FailedAttempts),
    ("route", Field::Route),
    ("cache", Field::Cache),
    ("cause", Field::Cause),
    ("detail", Field::Detail),
];

/// The fields with a name at their end.
const PREFIXES: [&str; 2] = ["request.header.", "response.header."];

/// A field of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Time,
    Client,
    RequestId,
    Method,
    Host,
    Path,
    Query,
    Uri,
    Protocol,
    Status,
    Bytes,
    Latency,
    Upstream,
    Pool,
    UpstreamLatency,
    Attempts,
    FailedAttempts,
    Route,
    Cache,
    Cause,
    Detail,
    RequestHeader(HeaderName),
    ResponseHeader(HeaderName),
}

impl Field {
    fn parse(name: &str) -> Result<Self, (String, String)> {
        if let Some((_, field)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(field.clone());
        }
        let header = |field: &str| {
            HeaderName::from_bytes(field.as_bytes())
                .map_err(|_| (format!("`{field}` is not a header name"), "write for example `User-Agent`".to_owned()))
        };
        let after = |prefix: &str| name.strip_prefix(prefix).filter(|rest| !rest.is_empty());
        if let Some(field) = after("request.header.") {
            return header(field).map(Self::RequestHeader);
        }
        if let Some(field) = after("response.header.") {
            return header(field).map(Self::ResponseHeader);
        }
        let names = NAMES.iter().map(|(name, _)| *name);
        let hint = nearest(name, names.clone().chain(PREFIXES)).map_or_else(
            || format!("known: {}, and {}NAME", names.collect::<Vec<_>>().join(", "), PREFIXES.join("NAME, ")),
            |near| format!("did you mean `{near}{}`?", if near.ends_with('.') { "NAME" } else { "" }),
        );
        Err((format!("there is no field `{name}`"), hint))
    }
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub(super) Vec<Part<Field>>);

impl Template {
    /// Parses a template; a fault is reported at `place`.
    pub(super) fn check(text: &str, place: &Place, faults: &mut Faults) -> Option<Self> {
        let problem = match template_text::parse(text, Field::parse) {
            Ok(_) if text.contains(char::is_control) => {
                ("the template has a control character".to_owned(), "write one line without tabs".to_owned())
            }
            Ok(parts) if !parts.is_empty() => return Some(Self(parts)),
            Ok(_) => {
                ("the template is empty".to_owned(), "write for example `${client.ip} ${response.status}`".to_owned())
            }
            Err(problem) => problem,
        };
        faults.add(place.clone(), problem.0, problem.1);
        None
    }

    fn fields(&self) -> impl Iterator<Item = &Field> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(field) => Some(field),
            Part::Text(_) => None,
        })
    }

    /// Whether it has the query.
    pub(super) fn has_query(&self) -> bool {
        self.fields().any(|field| matches!(field, Field::Query | Field::Uri))
    }

    /// The header fields of responses that it has.
    pub(super) fn response_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.fields().filter_map(|field| match field {
            Field::ResponseHeader(name) => Some(name),
            _ => None,
        })
    }
}

impl Template {
    /// Appends the line, without its end. A field without a value is `-`.
    pub(super) fn write(&self, record: &Record<'_>, layout: &Layout, line: &mut String) {
        for part in &self.0 {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Variable(field) => field.write(record, layout, line),
            }
        }
    }
}

impl Field {
    fn write(&self, record: &Record<'_>, layout: &Layout, line: &mut String) {
        let mut digits = itoa::Buffer::new();
        match self {
            Self::Time => line.push_str(ascii(&rfc3339_millis(record.time))),
            Self::Client => line.push_str(&layout.redaction.client(record.client)),
            Self::RequestId => line.push_str(record.request_id),
            Self::Method => push(line, record.method),
            Self::Host => push(line, record.host),
            Self::Path => push(line, record.path),
            Self::Query => push(line, record.logged_query(layout).as_deref().unwrap_or_default()),
            Self::Uri => {
                push(line, record.path);
                if let Some(query) = record.logged_query(layout) {
                    line.push('?');
                    push_escaped(line, &query);
                }
            }
            Self::Protocol => line.push_str(record.protocol),
            Self::Status => line.push_str(digits.format(record.status)),
            Self::Bytes => line.push_str(digits.format(record.bytes)),
            Self::Latency => push_millis(line, record.latency),
            Self::Upstream => push(line, record.upstream.unwrap_or_default()),
            Self::Pool => push(line, record.pool.unwrap_or_default()),
            Self::UpstreamLatency => match record.upstream_latency {
                Some(latency) => push_millis(line, latency),
                None => line.push('-'),
            },
            Self::Attempts => line.push_str(digits.format(record.attempts)),
            Self::FailedAttempts => push_causes(line, record.failed_attempts),
            Self::Route => push(line, record.route.unwrap_or_default()),
            Self::Cache => push(line, record.cache),
            Self::Cause => push(line, record.cause.map_or("", Cause::as_str)),
            Self::Detail => push(line, record.detail),
            Self::RequestHeader(name) => push_header(line, name, record.request_header(name), layout),
            Self::ResponseHeader(name) => push_header(line, name, record.response_header(name), layout),
        }
    }
}

/// Adds a value of a client or backend.
fn push(line: &mut String, value: &str) {
    if value.is_empty() { line.push('-') } else { push_escaped(line, value) }
}

fn push_causes(line: &mut String, causes: &[Cause]) {
    if causes.is_empty() {
        line.push('-');
    }
    for (at, cause) in causes.iter().enumerate() {
        line.push_str(if at == 0 { "" } else { "," });
        line.push_str(cause.as_str());
    }
}

fn push_header(line: &mut String, name: &HeaderName, value: Option<&[u8]>, layout: &Layout) {
    let Some(value) = value else { return line.push('-') };
    let value = layout.redaction.value(layout.redaction.of_header(name), value);
    push(line, &text_of(&value));
}
