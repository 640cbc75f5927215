//! The fields of one finished request, and the line of text that they make.
//!
//! - [`layout`]: the format, further fields and redaction, from the configuration.
//! - `fields`: text and JSON, which have the same fields in the same order.
//! - `combined`: the combined format of Apache; [`template`]: lines by a template.
//! - [`redaction`]: what a line must not reveal; `escape`: values of clients cannot forge a line.

mod combined;
mod escape;
mod fields;
pub mod layout;
pub mod redaction;
pub mod template;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::base::cause::Cause;
use layout::{Form, Layout};

/// One finished request.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the request arrived.
    pub time: SystemTime,
    /// The client address.
    pub client: &'a str,
    /// The method.
    pub method: &'a str,
    /// The requested host; empty if there is none.
    pub host: &'a str,
    /// The path without the query.
    pub path: &'a str,
    /// The query, if there is one.
    pub query: Option<&'a str>,
    /// The protocol version.
    pub protocol: &'static str,
    /// The header of the request; `None` if it is not known.
    pub request_headers: Option<&'a HeaderMap>,
    /// The header fields of the response that lines have.
    pub response_headers: &'a [(HeaderName, HeaderValue)],
    /// The status code of the response; 0 if the client closed the connection before.
    pub status: u16,
    /// Bytes of the response body.
    pub bytes: u64,
    /// From the arrival of the request to the last byte of the response.
    pub latency: Duration,
    /// The backend of the last attempt.
    pub upstream: Option<&'a str>,
    /// From the selection of that backend to its response header.
    pub upstream_latency: Option<Duration>,
    /// The number of attempts.
    pub attempts: u32,
    /// The route.
    pub route: Option<&'a str>,
    /// The pool that the route selected.
    pub pool: Option<&'a str>,
    /// The request id, which needs no escaping.
    pub request_id: &'a str,
    /// How the cache of the route was used; empty if the route has none.
    pub cache: &'static str,
    /// Why l7lb responded itself, or why the request failed.
    pub cause: Option<Cause>,
    /// The causes of the attempts that failed.
    pub failed_attempts: &'a [Cause],
    /// The detail of a rejection in a few words; empty if the cause is sufficient.
    pub detail: &'a str,
}

impl<'a> Record<'a> {
    /// Appends the line and its line end.
    pub fn write(&self, layout: &Layout, line: &mut String) {
        match &layout.form {
            Form::Text => fields::write::<false>(self, layout, line),
            Form::Json => fields::write::<true>(self, layout, line),
            Form::Combined => combined::write(self, layout, line),
            Form::Template(template) => template.write(self, layout, line),
        }
        line.push('\n');
    }

    /// The name of the cause; empty without one.
    #[must_use]
    pub fn cause_text(&self) -> &'static str {
        self.cause.map_or("", Cause::as_str)
    }

    /// The first value of a header field of the request.
    fn request_header(&self, name: &HeaderName) -> Option<&'a [u8]> {
        self.request_headers?.get(name).map(HeaderValue::as_bytes)
    }

    /// The value of a header field of the response.
    fn response_header(&self, name: &HeaderName) -> Option<&'a [u8]> {
        self.response_headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_bytes())
    }

    /// The query as it is logged, if it is.
    fn logged_query(&self, layout: &'a Layout) -> Option<Cow<'a, str>> {
        self.query.filter(|_| layout.query).map(|query| layout.redaction.query(query))
    }
}
