//! The fields of one finished request, and their formats.
//!
//! Both formats have the same fields in the same order. Values from clients are escaped, so that a client
//! cannot forge a line.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::Deserialize;

use super::digits::{ascii, digit, rfc3339_millis};

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

/// What precedes a value: the separator and the key. Both are one text, because a line has many keys.
#[derive(Clone, Copy)]
struct Key {
    text: &'static str,
    json: &'static str,
}

/// The first field, which has the start of a JSON object instead of a separator.
const TIME: Key = Key { text: "time=", json: "{\"time\":" };

/// The key of any other field.
macro_rules! key {
    ($name:literal) => {
        Key { text: concat!(" ", $name, "="), json: concat!(",\"", $name, "\":") }
    };
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
    /// The request id, which needs no escaping.
    pub request_id: &'a str,
    /// How the cache of the route was used; empty if the route has none.
    pub cache: &'static str,
    /// The cause of a rejection or failure; empty otherwise.
    pub cause: &'static str,
    /// The detail of a rejection in a few words; empty if the cause is sufficient.
    pub detail: &'a str,
}

impl Record<'_> {
    /// Appends the line and its line end.
    pub fn write(&self, format: Format, line: &mut String) {
        let mut fields = Fields { line, format };
        fields.time(TIME, self.time);
        fields.plain(key!("client"), self.client);
        fields.text(key!("method"), self.method);
        fields.text(key!("host"), self.host);
        fields.text(key!("path"), self.path);
        fields.plain(key!("protocol"), self.protocol);
        fields.number(key!("status"), self.status.into());
        fields.number(key!("bytes"), self.bytes);
        fields.millis(key!("latency_ms"), Some(self.latency));
        match self.upstream {
            Some(upstream) => fields.plain(key!("upstream"), upstream),
            None => fields.absent(key!("upstream")),
        }
        fields.millis(key!("upstream_latency_ms"), self.upstream_latency);
        fields.number(key!("attempts"), self.attempts.into());
        for (key, name) in [(key!("route"), self.route), (key!("pool"), self.pool)] {
            match name {
                Some(name) => fields.text(key, name),
                None => fields.absent(key),
            }
        }
        if !self.cache.is_empty() {
            fields.plain(key!("cache"), self.cache);
        }
        fields.plain(key!("request_id"), self.request_id);
        match self.cause {
            "" => fields.absent(key!("cause")),
            cause => fields.plain(key!("cause"), cause),
        }
        if !self.detail.is_empty() {
            fields.text(key!("detail"), self.detail);
        }
        fields.end();
    }
}

/// Writes named fields in one of the formats. Writing to a `String` cannot fail, hence the `ok`s.
struct Fields<'a> {
    line: &'a mut String,
    format: Format,
}

impl Fields<'_> {
    fn end(&mut self) {
        self.line.push_str(if self.format == Format::Json { "}\n" } else { "\n" });
    }

    fn key(&mut self, key: Key) {
        self.line.push_str(match self.format {
            Format::Text => key.text,
            Format::Json => key.json,
        });
    }

    /// A value that needs no escaping.
    fn plain(&mut self, key: Key, value: &str) {
        self.key(key);
        match self.format {
            Format::Text => self.line.push_str(value),
            Format::Json => {
                self.line.push('"');
                self.line.push_str(value);
                self.line.push('"');
            }
        }
    }

    /// Without `format!`, which costs several times as much; so do the numbers.
    fn time(&mut self, key: Key, time: SystemTime) {
        self.plain(key, ascii(&rfc3339_millis(time)));
    }

    fn number(&mut self, key: Key, value: u64) {
        self.key(key);
        self.line.push_str(itoa::Buffer::new().format(value));
    }

    fn absent(&mut self, key: Key) {
        self.key(key);
        self.line.push_str(if self.format == Format::Json { "null" } else { "-" });
    }

    fn millis(&mut self, key: Key, duration: Option<Duration>) {
        match duration {
            Some(duration) => {
                let millis = duration.as_secs().saturating_mul(1000).saturating_add(duration.subsec_millis().into());
                self.number(key, millis);
                let micros = duration.subsec_micros();
                self.line.push_str(ascii(&[b'.', digit(micros / 100), digit(micros / 10), digit(micros)]));
            }
            None => self.absent(key),
        }
    }

    /// A value chosen by a client or backend.
    fn text(&mut self, key: Key, value: &str) {
        self.key(key);
        match self.format {
            Format::Json => {
                self.line.push('"');
                self.escape(value);
                self.line.push('"');
            }
            Format::Text if value.is_empty() => self.line.push('-'),
            // Quoted only if necessary, so that usual lines are easy to read.
            Format::Text if is_plain(value) => {
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

/// Whether a value needs no quotes.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| PLAIN.get(usize::from(byte)) == Some(&true))
}

/// The bytes that need no quotes. A table costs half as much as comparisons.
#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it, and rejects an index that is out of bounds")]
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        plain[byte as usize] = !matches!(byte, b'"' | b'\\');
        byte += 1;
    }
    plain
};

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
