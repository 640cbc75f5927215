//! The checked cache settings of a route.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::Deserialize;

use super::cookies::cookies;

/// The checked cache settings of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Lifetime of a response that states none, with one of `statuses`; `None`: such a response is not stored.
    pub default_ttl: Option<Duration>,
    /// Upper bound of every lifetime.
    pub max_ttl: Option<Duration>,
    /// Statuses that `default_ttl` and heuristics apply to. Explicit freshness applies to every final status.
    pub statuses: Vec<u16>,
    /// Lifetime of 404, 405, 410, 414 and 501 responses that state none (negative caching).
    pub negative_ttl: Option<Duration>,
    /// Whether the lifetime is estimated from Last-Modified (10 % of its age, at most a day) if nothing states it.
    pub heuristic: bool,
    /// What happens to a response with Set-Cookie.
    pub set_cookie: SetCookie,
    /// How long a stale response may be sent while it is validated, if the response does not say.
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale response may be sent instead of an error, if the response does not say.
    pub stale_if_error: Option<Duration>,
    /// Whether Cache-Control and Pragma of requests are respected.
    pub client_directives: bool,
    /// Largest stored body in bytes.
    pub max_object_size: u64,
    /// What identifies a response.
    pub key: KeyRules,
}

/// What happens to a response with Set-Cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SetCookie {
    /// It is not stored.
    #[default]
    Reject,
    /// It is stored without Set-Cookie. Only the client whose request was forwarded gets the cookie.
    Strip,
    /// It is stored with Set-Cookie, so all clients get the same cookie.
    Store,
}

/// What identifies a response besides the path and, by default, host and query.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRules {
    /// Whether the host is part of the key.
    pub host: bool,
    /// Which part of the query is in the key.
    pub query: QueryRule,
    /// Request headers that are part of the key.
    pub headers: Vec<HeaderName>,
    /// Names of cookies that are part of the key.
    pub cookies: Vec<String>,
}

/// Which part of the query is in the key.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryRule {
    /// The query as it is.
    Whole,
    /// All parameters, sorted by name.
    Sorted,
    /// Without parameters that only serve advertising and analytics.
    WithoutTracking,
    /// Only these parameters, sorted by name.
    Only(Vec<String>),
    /// Nothing.
    None,
}

/// Requests that use no cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bypass {
    /// Headers whose presence bypasses the cache.
    pub headers: Vec<HeaderName>,
    /// Cookies whose presence bypasses the cache.
    pub cookies: Vec<String>,
    /// Query parameters whose presence bypasses the cache.
    pub query: Vec<String>,
}

impl Bypass {
    /// Whether a request with these headers and this query bypasses the cache.
    #[must_use]
    pub fn applies(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        self.headers.iter().any(|name| headers.contains_key(name))
            || (!self.cookies.is_empty() && self.has_cookie(headers))
            || (!self.query.is_empty() && query.is_some_and(|query| self.has_parameter(query)))
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        cookies(headers).any(|(name, _)| self.cookies.iter().any(|cookie| cookie.as_bytes() == name))
    }

    fn has_parameter(&self, query: &str) -> bool {
        let mut names = query.split('&').map(|pair| name_of(pair.as_bytes()));
        names.any(|name| self.query.iter().any(|parameter| parameter.as_bytes() == name))
    }
}

/// The name in `name=value`.
fn name_of(pair: &[u8]) -> &[u8] {
    pair.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_with_a_listed_header_cookie_or_parameter_bypasses_the_cache() {
        let bypass = Bypass {
            headers: vec![HeaderName::from_static("x-preview")],
            cookies: vec!["session".into()],
            query: vec!["nocache".into()],
        };
        for (name, value, query, expected) in [
            ("x-preview", "", None, true),
            ("cookie", "a=1; session=2", None, true),
            ("cookie", "session", None, true),
            ("cookie", "xsession=1; a=session", None, false),
            ("accept", "x", Some("a=1&nocache"), true),
            ("accept", "x", Some("a=1&nocache=1"), true),
            ("accept", "x", Some("a=nocache&b=nocache"), false),
            ("accept", "x", None, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(bypass.applies(&headers, query), expected, "{name}: {value} ?{query:?}");
        }
        assert!(!Bypass::default().applies(&HeaderMap::new(), Some("a")));
    }
}
