//! Conditions of a route beyond host, path and method: header fields, query parameters, cookies and the client's address.
//!
//! Each name has one value: that of a header field with several lines is the lines joined by `, ` (RFC 9110 §5.3); of
//! several parameters or cookies with one name, the first counts. So two conditions on one name can be compared, and routes
//! that no request matches together are known.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ipnet::IpNet;
use regex::bytes::Regex;

use super::affinity::cookie_value;
use crate::http::access_rules::contains;
use crate::http::target::decode_component;

/// The parts of a request that conditions read.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The target.
    pub uri: &'a Uri,
    /// The client's address.
    pub client: IpAddr,
}

/// What a condition reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A header field.
    Header(HeaderName),
    /// A query parameter, by its decoded name.
    Query(String),
    /// A cookie.
    Cookie(String),
}

impl Source {
    /// The value in a request.
    pub(super) fn value<'a>(&self, facts: &RequestFacts<'a>) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Header(name) => {
                let mut lines = facts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
                let first = lines.next()?;
                let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
                let all: Vec<&[u8]> = [first, second].into_iter().chain(lines).collect();
                Some(Cow::Owned(all.join(&b", "[..])))
            }
            Self::Query(name) => {
                let mut pairs = facts.uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                let (_, value) = pairs.find(|(known, _)| *decode_component(known) == *name.as_bytes())?;
                Some(decode_component(value))
            }
            Self::Cookie(name) => cookie_value(facts.headers, name).map(|value| Cow::Borrowed(value.as_bytes())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Query(name) => write!(f, "query {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
        }
    }
}

/// What a value must be.
#[derive(Clone, Debug)]
pub enum Test {
    /// There is a value.
    Present,
    /// This value.
    Exact(String),
    /// A value that starts with this text.
    Prefix(String),
    /// A value in which this regular expression matches.
    Regex(Regex),
}

impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) => true,
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl Eq for Test {}

/// A condition on one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What it reads.
    pub source: Source,
    /// What the value must be.
    pub test: Test,
    /// Whether the test must fail.
    pub negated: bool,
}

impl Condition {
    fn accepts(&self, value: Option<&[u8]>) -> bool {
        let passes = value.is_some_and(|value| match &self.test {
            Test::Present => true,
            Test::Exact(text) => value == text.as_bytes(),
            Test::Prefix(text) => value.starts_with(text.as_bytes()),
            Test::Regex(regex) => regex.is_match(value),
        });
        passes != self.negated
    }

    /// The only value that it accepts.
    pub(super) fn only_value(&self) -> Option<&[u8]> {
        match &self.test {
            Test::Exact(text) if !self.negated => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// Whether no value fulfils both. `false` if that is not known.
    fn excludes(&self, other: &Self) -> bool {
        if self.source != other.source {
            return false;
        }
        let one_way = |a: &Self, b: &Self| match (&a.test, a.negated) {
            // The only value, and the only case without a value.
            (Test::Exact(text), false) => !b.accepts(Some(text.as_bytes())),
            (Test::Present, true) => !b.accepts(None),
            (Test::Prefix(text), false) => match (&b.test, b.negated) {
                (Test::Prefix(other), false) => !text.starts_with(other) && !other.starts_with(text),
                // All values with the longer prefix have the shorter one.
                (Test::Prefix(other), true) => text.starts_with(other),
                _ => false,
            },
            _ => false,
        };
        let opposite = self.test == other.test && self.negated != other.negated;
        opposite || one_way(self, other) || one_way(other, self)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = &self.source;
        match (&self.test, self.negated) {
            (Test::Present, false) => write!(f, "{source}"),
            (Test::Present, true) => write!(f, "no {source}"),
            (Test::Exact(text), negated) => write!(f, "{source} {} {text}", if negated { "!=" } else { "=" }),
            (Test::Prefix(text), negated) => write!(f, "{source} {} {text}*", if negated { "!=" } else { "=" }),
            (Test::Regex(regex), negated) => write!(f, "{source} {} {regex}", if negated { "!~" } else { "~" }),
        }
    }
}

/// The conditions of a route; all must be fulfilled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The conditions on names.
    pub named: Vec<Condition>,
    /// The networks of clients; empty for all.
    pub clients: Vec<IpNet>,
    /// The networks of clients that do not match.
    pub except_clients: Vec<IpNet>,
}

/// A kind of condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On a header field.
    Header,
    /// On a query parameter.
    Query,
    /// On a cookie.
    Cookie,
    /// On the client's address.
    Client,
}

impl Conditions {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.clients.is_empty() && self.except_clients.is_empty()
    }

    /// The kind of the first condition that the request does not fulfil.
    #[must_use]
    pub fn mismatch(&self, facts: &RequestFacts<'_>) -> Option<Kind> {
        if !self.clients.is_empty() && !contains(&self.clients, facts.client)
            || contains(&self.except_clients, facts.client)
        {
            return Some(Kind::Client);
        }
        let failed = self.named.iter().find(|one| !one.accepts(one.source.value(facts).as_deref()))?;
        Some(match failed.source {
            Source::Header(_) => Kind::Header,
            Source::Query(_) => Kind::Query,
            Source::Cookie(_) => Kind::Cookie,
        })
    }

    /// Whether no request fulfils both. `false` if that is not known, as for two regular expressions.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        self.named.iter().any(|one| other.named.iter().any(|two| one.excludes(two)))
            || self.excludes_clients_of(other)
            || other.excludes_clients_of(self)
    }

    fn excludes_clients_of(&self, other: &Self) -> bool {
        if self.clients.is_empty() {
            return false;
        }
        let apart = |a: &IpNet, b: &IpNet| !a.contains(b) && !b.contains(a);
        let none_in_common =
            !other.clients.is_empty() && self.clients.iter().all(|one| other.clients.iter().all(|two| apart(one, two)));
        let all_excepted = self.clients.iter().all(|one| other.except_clients.iter().any(|two| two.contains(one)));
        none_in_common || all_excepted
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = |networks: &[IpNet]| networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        let mut words: Vec<String> = self.named.iter().map(ToString::to_string).collect();
        if !self.clients.is_empty() {
            words.push(format!("client in {}", networks(&self.clients)));
        }
        if !self.except_clients.is_empty() {
            words.push(format!("client not in {}", networks(&self.except_clients)));
        }
        f.write_str(&words.join(", "))
    }
}
