//! What a filter `rate_limit` counts separately.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::str::FromStr;

use http::HeaderName;

use super::Request;
use crate::base::fault::nearest;
use crate::http::client_address::ClientKey;
use crate::routing::affinity::cookie_value;

/// A part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The client: an IPv4 address, or an IPv6 /64.
    Client,
    /// The requested host.
    Host,
    /// The route.
    Route,
    /// The method.
    Method,
    /// The path, without its query.
    Path,
    /// The first field of this name.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A claim of the token that a filter `jwt` has verified.
    Claim(String),
    /// A segment of the path, from 1.
    Segment(usize),
    /// A parameter of the query.
    Query(String),
}

/// How parts are written.
const WORDS: [&str; 10] = [
    "client",
    "host",
    "route",
    "method",
    "path",
    "header:NAME",
    "cookie:NAME",
    "claim:NAME",
    "segment:NUMBER",
    "query:NAME",
];

impl FromStr for Part {
    type Err = (String, String);

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (word, name) = text.split_once(':').map_or((text, None), |(word, name)| (word, Some(name.trim())));
        let part = match (word, name.filter(|name| !name.is_empty())) {
            ("client", None) => Some(Self::Client),
            ("host", None) => Some(Self::Host),
            ("route", None) => Some(Self::Route),
            ("method", None) => Some(Self::Method),
            ("path", None) => Some(Self::Path),
            ("header", Some(name)) => name.parse().ok().map(Self::Header),
            ("cookie", Some(name)) => Some(Self::Cookie(name.to_owned())),
            ("claim", Some(name)) => Some(Self::Claim(name.to_owned())),
            ("segment", Some(number)) => number.parse().ok().filter(|number| *number > 0).map(Self::Segment),
            ("query", Some(name)) => Some(Self::Query(name.to_owned())),
            _ => None,
        };
        part.ok_or_else(|| {
            let same = WORDS.iter().find(|known| known.split(':').next() == Some(word)).copied();
            let hint = match same.or_else(|| nearest(text, WORDS)) {
                Some(near) => format!("write `{near}`"),
                None => format!("write {}", WORDS.join(", ")),
            };
            (format!("`{text}` is not a part of a request"), hint)
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Host => f.write_str("host"),
            Self::Route => f.write_str("route"),
            Self::Method => f.write_str("method"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Claim(name) => write!(f, "claim:{name}"),
            Self::Segment(number) => write!(f, "segment:{number}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

impl Part {
    /// Adds the value of a request to a hash. Without a value, the client takes its place, so that a request cannot avoid a
    /// limit by leaving it out.
    fn add(&self, request: &Request<'_>, hasher: &mut impl Hasher) {
        let mut add = |value: Option<&[u8]>| match value {
            Some(value) => {
                hasher.write_u8(1);
                hasher.write_usize(value.len());
                hasher.write(value);
            }
            None => {
                hasher.write_u8(0);
                hasher.write_u64(ClientKey::from(request.facts.client).0);
            }
        };
        let uri = request.uri();
        match self {
            Self::Client => add(None),
            Self::Host => add(Some(request.facts.host.to_ascii_lowercase().as_bytes())),
            Self::Route => add(Some(request.facts.route.as_bytes())),
            Self::Method => add(Some(request.header.method.as_str().as_bytes())),
            Self::Path => add(Some(uri.path().as_bytes())),
            Self::Header(name) => add(request.fields().get(name).map(http::HeaderValue::as_bytes)),
            Self::Cookie(name) => add(cookie_value(request.fields(), name).map(str::as_bytes)),
            Self::Claim(name) => {
                let claims = request.changes.claims.as_ref();
                add(claims.and_then(|claims| claims.text(name)).as_deref().map(str::as_bytes));
            }
            Self::Segment(number) => add(uri.path().split('/').nth(*number).map(str::as_bytes)),
            Self::Query(name) => {
                let mut pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
                add(pairs.find(|(key, _)| key == name).map(|(_, value)| value.as_bytes()));
            }
        }
    }
}

/// The key of a request: its client, or a hash of several parts, which an attacker cannot compute.
pub(super) fn key(parts: &[Part], request: &Request<'_>, state: &ahash::RandomState) -> ClientKey {
    if parts == [Part::Client] {
        return ClientKey::from(request.facts.client);
    }
    let mut hasher = state.build_hasher();
    parts.iter().for_each(|part| part.add(request, &mut hasher));
    ClientKey(hasher.finish())
}
