//! The fields of one finished request, and their formats.
//!
//! Both formats have the same fields in the same order. Values from clients are escaped, so that a client
//! cannot forge a line.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::Deserialize;

/// The format of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `key=value` pairs.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

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
    /// The path without the query, which may contain secrets.
    pub path: &'a str,
    /// The protocol version.
    pub protocol: &'static str,
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
    /// The request id.
    pub request_id: &'a str,
    /// How the cache of the route was used; empty if the route has none.
    pub cache: &'static str,
    /// The cause of a rejection or failure; empty otherwise.
    pub cause: &'a str,
    /// The detail of a rejection in a few words; empty if the cause is sufficient.
    pub detail: &'a str,
}

impl Record<'_> {
    /// Appends the line and its line end.
    pub fn write(&self, format: Format, line: &mut String) {
        let mut fields = Fields { line, format, first: true };
        fields.begin();
        fields.time("time", self.time);
        fields.plain("client", self.client);
        fields.text("method", self.method);
        fields.text("host", self.host);
        fields.text("path", self.path);
        fields.plain("protocol", self.protocol);
        fields.number("status", self.status.into());
        fields.number("bytes", self.bytes);
        fields.millis("latency_ms", Some(self.latency));
        match self.upstream {
            Some(upstream) => fields.plain("upstream", upstream),
            None => fields.absent("upstream"),
        }
        fields.millis("upstream_latency_ms", self.upstream_latency);
        fields.number("attempts", self.attempts.into());
        for (key, name) in [("route", self.route), ("pool", self.pool)] {
            match name {
                Some(name) => fields.text(key, name),
                None => fields.absent(key),
            }
        }
        if !self.cache.is_empty() {
            fields.plain("cache", self.cache);
        }
        fields.text("request_id", self.request_id);
        match self.cause {
            "" => fields.absent("cause"),
            cause => fields.plain("cause", cause),
        }
        if !self.detail.is_empty() {
            fields.text("detail", self.detail);
        }
        fields.end();
    }
}

/// Writes named fields in one of the formats. Writing to a `String` cannot fail, hence the `ok`s.
struct Fields<'a> {
    line: &'a mut String,
    format: Format,
    first: bool,
}

impl Fields<'_> {
    fn begin(&mut self) {
        if self.format == Format::Json {
            self.line.push('{');
        }
    }

    fn end(&mut self) {
        self.line.push_str(if self.format == Format::Json { "}\n" } else { "\n" });
    }

    fn key(&mut self, key: &str) {
        if !self.first {
            self.line.push(if self.format == Format::Json { ',' } else { ' ' });
        }
        self.first = false;
        match self.format {
            Format::Text => {
                self.line.push_str(key);
                self.line.push('=');
            }
            Format::Json => {
                self.line.push('"');
                self.line.push_str(key);
                self.line.push_str("\":");
            }
        }
    }

    /// A value that needs no escaping.
    fn plain(&mut self, key: &str, value: &str) {
        self.key(key);
        let quote = if self.format == Format::Json { "\"" } else { "" };
        self.line.push_str(quote);
        self.line.push_str(value);
        self.line.push_str(quote);
    }

    fn time(&mut self, key: &str, time: SystemTime) {
        self.key(key);
        let quote = if self.format == Format::Json { "\"" } else { "" };
        write!(self.line, "{quote}{}{quote}", humantime::format_rfc3339_millis(time)).ok();
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.digits(value);
    }

    /// Without `format!`, which costs more than the digits; a line has many numbers.
    fn digits(&mut self, value: u64) {
        self.line.push_str(itoa::Buffer::new().format(value));
    }

    fn absent(&mut self, key: &str) {
        self.key(key);
        self.line.push_str(if self.format == Format::Json { "null" } else { "-" });
    }

    fn millis(&mut self, key: &str, duration: Option<Duration>) {
        match duration {
            Some(duration) => {
                // 64 bits of microseconds are more than half a million years.
                let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
                self.number(key, micros / 1000);
                // A leading 1 keeps the zeros; it is replaced by the point.
                let fraction = self.line.len();
                self.digits(1000 + micros % 1000);
                self.line.replace_range(fraction..=fraction, ".");
            }
            None => self.absent(key),
        }
    }

    /// A value chosen by a client or backend.
    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        match self.format {
            Format::Json => {
                self.line.push('"');
                self.escape(value);
                self.line.push('"');
            }
            Format::Text if value.is_empty() => self.line.push('-'),
            // Quoted only if necessary, so that usual lines are easy to read.
            Format::Text if value.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') => {
                self.line.push_str(value);
            }
            Format::Text => {
                self.line.push('"');
                self.escape(value);
                self.line.push('"');
            }
        }
    }

    fn escape(&mut self, value: &str) {
        for character in value.chars() {
            match character {
                '"' | '\\' => {
                    self.line.push('\\');
                    self.line.push(character);
                }
                c if c.is_control() => {
                    write!(self.line, "\\u{:04x}", u32::from(c)).ok();
                }
                c => self.line.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>() -> Record<'a> {
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            client: "192.0.2.1",
            method: "GET",
            host: "example.com",
            path: "/apiA",
            protocol: "HTTP/2",
            status: 200,
            bytes: 12,
            latency: Duration::from_micros(1_234),
            upstream: Some("127.0.0.1:8081"),
            upstream_latency: Some(Duration::from_micros(987)),
            attempts: 1,
            route: Some("*/apiA"),
            pool: Some("api-a"),
            request_id: "0123",
            cache: "",
            cause: "",
            detail: "",
        }
    }

    fn line(record: &Record<'_>, format: Format) -> String {
        let mut line = String::new();
        record.write(format, &mut line);
        line
    }

    #[test]
    fn text_line_has_every_field() {
        assert_eq!(
            line(&record(), Format::Text),
            "time=2023-11-14T22:13:20.123Z client=192.0.2.1 method=GET host=example.com path=/apiA protocol=HTTP/2 \
             status=200 bytes=12 latency_ms=1.234 upstream=127.0.0.1:8081 upstream_latency_ms=0.987 attempts=1 \
             route=*/apiA pool=api-a request_id=0123 cause=-\n"
        );
    }

    #[test]
    fn json_line_is_valid_for_any_client_input() {
        let record = Record {
            path: "/\" \\ \n\u{7f}ü",
            upstream: None,
            upstream_latency: None,
            route: None,
            cause: "no_route",
            ..record()
        };
        let line = line(&record, Format::Json);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        // YAML is a superset of JSON, so the available parser suffices.
        let value: serde_yaml::Value = serde_yaml::from_str(&line).unwrap();
        assert_eq!(value["path"].as_str().unwrap(), "/\" \\ \n\u{7f}ü");
        assert_eq!(value["cause"].as_str().unwrap(), "no_route");
        assert!(value["upstream"].is_null() && value["route"].is_null());
        assert_eq!(value["latency_ms"].as_f64().unwrap(), 1.234);
    }

    #[test]
    fn client_cannot_forge_a_line() {
        let record = Record { path: "/x\ntime=forged", host: "a\" status=200", ..record() };
        let line = line(&record, Format::Text);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains(r#"path="/x\u000atime=forged""#), "{line}");
        assert!(line.contains(r#"host="a\" status=200""#), "{line}");
    }
}
