//! Lines of `key=value` pairs, and lines of JSON.

use std::time::{Duration, SystemTime};

use http::HeaderName;

use super::Record;
use super::escape::{is_plain, push_escaped, text_of};
use super::layout::{Layout, LoggedField};
use crate::base::cause::Cause;
use crate::observe::digits::{ascii, digit, rfc3339_millis};

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

/// Appends the line, without its end.
pub(super) fn write<const JSON: bool>(record: &Record<'_>, layout: &Layout, line: &mut String) {
    let mut fields = Fields::<'_, JSON> { line };
    fields.time(TIME, record.time);
    fields.plain(key!("client"), &layout.redaction.client(record.client));
    fields.text(key!("method"), record.method);
    fields.text(key!("host"), record.host);
    fields.text(key!("path"), record.path);
    if layout.query {
        fields.optional(key!("query"), record.logged_query(layout).as_deref());
    }
    fields.plain(key!("protocol"), record.protocol);
    fields.number(key!("status"), record.status.into());
    fields.number(key!("bytes"), record.bytes);
    fields.millis(key!("latency_ms"), Some(record.latency));
    match record.upstream {
        Some(upstream) => fields.plain(key!("upstream"), upstream),
        None => fields.absent(key!("upstream")),
    }
    fields.millis(key!("upstream_latency_ms"), record.upstream_latency);
    fields.number(key!("attempts"), record.attempts.into());
    fields.optional(key!("route"), record.route);
    fields.optional(key!("pool"), record.pool);
    if !record.cache.is_empty() {
        fields.plain(key!("cache"), record.cache);
    }
    fields.plain(key!("request_id"), record.request_id);
    match record.cause {
        None => fields.absent(key!("cause")),
        Some(cause) => fields.plain(key!("cause"), cause.as_str()),
    }
    if !record.failed_attempts.is_empty() {
        fields.causes(key!("failed_attempts"), record.failed_attempts);
    }
    if !record.detail.is_empty() {
        fields.text(key!("detail"), record.detail);
    }
    let of_request = |name: &HeaderName| record.request_header(name);
    fields.headers(",\"request_headers\":{", (&layout.request_headers, layout), of_request);
    let of_response = |name: &HeaderName| record.response_header(name);
    fields.headers(",\"response_headers\":{", (&layout.response_headers, layout), of_response);
    if JSON {
        line.push('}');
    }
}

/// Appends a duration in milliseconds with three decimals. `format!` costs several times as much.
pub(super) fn push_millis(line: &mut String, duration: Duration) {
    let millis = duration.as_secs().saturating_mul(1000).saturating_add(duration.subsec_millis().into());
    line.push_str(itoa::Buffer::new().format(millis));
    let micros = duration.subsec_micros();
    line.push_str(ascii(&[b'.', digit(micros / 100), digit(micros / 10), digit(micros)]));
}

/// Writes named fields in one of the formats.
struct Fields<'a, const JSON: bool> {
    line: &'a mut String,
}

impl<const JSON: bool> Fields<'_, JSON> {
    fn key(&mut self, key: Key) {
        self.line.push_str(if JSON { key.json } else { key.text });
    }

    /// A value that needs no escaping.
    fn plain(&mut self, key: Key, value: &str) {
        self.key(key);
        if JSON {
            self.line.push('"');
            self.line.push_str(value);
            self.line.push('"');
        } else {
            self.line.push_str(value);
        }
    }

    fn time(&mut self, key: Key, time: SystemTime) {
        self.plain(key, ascii(&rfc3339_millis(time)));
    }

    /// Causes in the order of the attempts; in text with commas.
    fn causes(&mut self, key: Key, causes: &[Cause]) {
        self.key(key);
        let (open, quote, close) = if JSON { ("[", "\"", "]") } else { ("", "", "") };
        self.line.push_str(open);
        for (at, cause) in causes.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            self.line.extend([comma, quote, cause.as_str(), quote]);
        }
        self.line.push_str(close);
    }

    fn number(&mut self, key: Key, value: u64) {
        self.key(key);
        self.line.push_str(itoa::Buffer::new().format(value));
    }

    fn absent(&mut self, key: Key) {
        self.key(key);
        self.line.push_str(if JSON { "null" } else { "-" });
    }

    fn optional(&mut self, key: Key, value: Option<&str>) {
        match value {
            Some(value) => self.text(key, value),
            None => self.absent(key),
        }
    }

    fn millis(&mut self, key: Key, duration: Option<Duration>) {
        match duration {
            Some(duration) => {
                self.key(key);
                push_millis(self.line, duration);
            }
            None => self.absent(key),
        }
    }

    /// A value chosen by a client or backend.
    fn text(&mut self, key: Key, value: &str) {
        self.key(key);
        self.value(value);
    }

    /// A value in quotes if they are necessary: usual lines of text are easy to read without.
    fn value(&mut self, value: &str) {
        if !JSON && value.is_empty() {
            self.line.push('-');
        } else if !JSON && is_plain(value) {
            self.line.push_str(value);
        } else {
            self.line.push('"');
            push_escaped(self.line, value);
            self.line.push('"');
        }
    }

    /// Header fields: in JSON an object that starts with `open`.
    fn headers<'b>(
        &mut self,
        open: &'static str,
        (fields, layout): (&[LoggedField], &Layout),
        value: impl Fn(&HeaderName) -> Option<&'b [u8]>,
    ) {
        if fields.is_empty() {
            return;
        }
        if JSON {
            self.line.push_str(open);
        }
        for (at, field) in fields.iter().enumerate() {
            if JSON {
                self.line.push_str(if at == 0 { "" } else { "," });
                self.line.push_str(&field.json);
            } else {
                self.line.push_str(&field.text);
            }
            match value(&field.name) {
                Some(value) => {
                    let value = layout.redaction.value(field.treatment, value);
                    self.value(&text_of(&value));
                }
                None => self.line.push_str(if JSON { "null" } else { "-" }),
            }
        }
        if JSON {
            self.line.push('}');
        }
    }
}
