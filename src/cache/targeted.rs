//! CDN-Cache-Control (RFC 9213), and the directives that apply to a response.
//!
//! The field is a dictionary of Structured Fields (RFC 9651). It is ignored as a whole if it does not parse. A known
//! directive whose value has the wrong type is dropped (RFC 9213 §2.1). If members remain, they replace Cache-Control
//! and Expires (§2.2). Parameters are ignored. The last member with a name counts.

use std::borrow::Cow;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::directives::{CacheControl, Directive, Fields, Kind, MAX_SECONDS, field_names, is_token};
use super::scanner::Scanner;

/// The name of the field.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The directives that apply to a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The directives.
    pub directives: CacheControl,
    /// Whether they are from CDN-Cache-Control, so that Expires does not count (RFC 9213 §2.2).
    pub targeted: bool,
}

impl Policy {
    /// CDN-Cache-Control if the response has a valid one, otherwise Cache-Control.
    #[must_use]
    pub fn of_response(headers: &HeaderMap) -> Self {
        match cdn_cache_control(headers) {
            Some(directives) => Self { directives, targeted: true },
            None => Self { directives: CacheControl::of_response(headers), targeted: false },
        }
    }
}

/// The directives of CDN-Cache-Control. `None` if it is absent, invalid or empty.
#[must_use]
pub fn cdn_cache_control(headers: &HeaderMap) -> Option<CacheControl> {
    let mut lines = headers.get_all(CDN_CACHE_CONTROL).iter().map(HeaderValue::as_bytes);
    let first = lines.next()?;
    // The lines form one dictionary (RFC 9651 §4.2).
    let value = lines.fold(Cow::Borrowed(first), |joined, line| Cow::Owned([&joined, line].join(&b',')));
    let members = Parser(Scanner { rest: &value }).dictionary()?;
    let mut directives = CacheControl::default();
    let mut used = members.has_unknown;
    for (directive, value) in members.known {
        used |= record(&mut directives, directive, &value);
    }
    used.then_some(directives)
}

/// Applies a member. Returns false if its value has the wrong type.
fn record(directives: &mut CacheControl, directive: Directive, value: &Value) -> bool {
    match (directive.kind(), value) {
        // `?0` is a directive that is absent.
        (Kind::Restriction | Kind::Permission | Kind::Fields, Value::Boolean(false)) => {}
        (Kind::Restriction | Kind::Permission, Value::Boolean(true)) => directives.set_flag(directive),
        (Kind::Fields, Value::Boolean(true)) => directives.set_fields(directive, Fields::All),
        (Kind::Fields, Value::Text(names)) => directives.set_fields(directive, field_names(names)),
        (Kind::Seconds, Value::Integer(seconds)) => directives.set_seconds(directive, Some(*seconds)),
        _ => return false,
    }
    true
}

/// A value of Structured Fields, as far as directives need it.
#[derive(Debug, PartialEq, Eq)]
enum Value {
    /// An integer that is not negative, at most [`MAX_SECONDS`].
    Integer(u64),
    Boolean(bool),
    /// A string or a token.
    Text(Vec<u8>),
    /// Any other type.
    Other,
}

#[derive(Default)]
struct Members {
    /// Known directives, each once.
    known: Vec<(Directive, Value)>,
    has_unknown: bool,
}

impl Members {
    fn insert(&mut self, key: &[u8], value: Value) {
        match Directive::named(key) {
            Some(directive) => {
                self.known.retain(|(known, _)| *known != directive);
                self.known.push((directive, value));
            }
            None => self.has_unknown = true,
        }
    }
}

/// A parser of Structured Fields (RFC 9651 §4.2). `None` is a syntax error.
struct Parser<'a>(Scanner<'a>);

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.rest.split_first()?;
        self.0.rest = rest;
        Some(*first)
    }

    /// §4.2.2.
    fn dictionary(mut self) -> Option<Members> {
        let mut members = Members::default();
        self.0.take_while(|byte| byte == b' ');
        if self.0.rest.is_empty() {
            return Some(members);
        }
        loop {
            let key = self.key()?;
            let value = if self.0.take_if(b'=') { self.member()? } else { Value::Boolean(true) };
            self.parameters()?;
            members.insert(key, value);
            self.0.take_while(is_optional_space);
            if self.0.rest.is_empty() {
                return Some(members);
            }
            self.0.take_if(b',').then_some(())?;
            // A comma at the end makes `key` fail.
            self.0.take_while(is_optional_space);
        }
    }

    /// §4.2.3.3.
    fn key(&mut self) -> Option<&'a [u8]> {
        matches!(self.0.rest.first(), Some(b'a'..=b'z' | b'*')).then_some(())?;
        Some(self.0.take_while(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')))
    }

    /// §4.2.3.2.
    fn parameters(&mut self) -> Option<()> {
        while self.0.take_if(b';') {
            self.0.take_while(|byte| byte == b' ');
            self.key()?;
            if self.0.take_if(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    /// An item or an inner list (§4.2.1.1), without the parameters of the member.
    fn member(&mut self) -> Option<Value> {
        if !self.0.take_if(b'(') {
            return self.bare_item();
        }
        loop {
            self.0.take_while(|byte| byte == b' ');
            if self.0.take_if(b')') {
                return Some(Value::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            matches!(self.0.rest.first(), Some(b' ' | b')')).then_some(())?;
        }
    }

    /// §4.2.3.1.
    fn bare_item(&mut self) -> Option<Value> {
        match self.0.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                Some(Value::Text(self.0.take_while(|byte| is_token(byte) || matches!(byte, b':' | b'/')).to_vec()))
            }
            b'?' => self.boolean(),
            b':' => self.byte_sequence(),
            b'@' => self.date(),
            b'%' => self.display_string(),
            _ => None,
        }
    }

    /// An integer of at most 15 digits, or a decimal of at most 12 digits and 1 to 3 digits (§4.2.4).
    fn number(&mut self) -> Option<Value> {
        let negative = self.0.take_if(b'-');
        let digits = self.0.take_while(|byte| byte.is_ascii_digit());
        if self.0.take_if(b'.') {
            let fraction = self.0.take_while(|byte| byte.is_ascii_digit());
            return ((1..=12).contains(&digits.len()) && (1..=3).contains(&fraction.len())).then_some(Value::Other);
        }
        (1..=15).contains(&digits.len()).then_some(())?;
        let number = digits.iter().fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
        Some(if negative && number > 0 { Value::Other } else { Value::Integer(number.min(MAX_SECONDS)) })
    }

    /// §4.2.5.
    fn string(&mut self) -> Option<Value> {
        self.next()?;
        let mut text = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(Value::Text(text)),
                b'\\' => text.push(self.next().filter(|byte| matches!(byte, b'"' | b'\\'))?),
                byte @ b' '..=b'~' => text.push(byte),
                _ => return None,
            }
        }
    }

    /// §4.2.8.
    fn boolean(&mut self) -> Option<Value> {
        self.next()?;
        match self.next()? {
            b'0' => Some(Value::Boolean(false)),
            b'1' => Some(Value::Boolean(true)),
            _ => None,
        }
    }

    /// §4.2.7.
    fn byte_sequence(&mut self) -> Option<Value> {
        self.next()?;
        self.0.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
        self.0.take_if(b':').then_some(Value::Other)
    }

    /// §4.2.9.
    fn date(&mut self) -> Option<Value> {
        self.next()?;
        let text = self.0.rest;
        self.number()?;
        let used = text.len() - self.0.rest.len();
        (!text.get(..used)?.contains(&b'.')).then_some(Value::Other)
    }

    /// §4.2.10.
    fn display_string(&mut self) -> Option<Value> {
        self.next()?;
        self.0.take_if(b'"').then_some(())?;
        let mut text = Vec::new();
        loop {
            match self.next()? {
                b'"' => return std::str::from_utf8(&text).ok().map(|_| Value::Other),
                b'%' => text.push(self.hexadecimal()? * 16 + self.hexadecimal()?),
                byte @ b' '..=b'~' => text.push(byte),
                _ => return None,
            }
        }
    }

    fn hexadecimal(&mut self) -> Option<u8> {
        match self.next()? {
            digit @ b'0'..=b'9' => Some(digit - b'0'),
            digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        }
    }
}

const fn is_optional_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
#[path = "targeted_tests.rs"]
mod tests;
