//! The field Cache-Status (RFC 9211): how the cache handled a request.

use std::fmt::Write;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::http::structured_field::push_string;

/// The name of the field.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The name of this cache in the field.
const CACHE: &str = "l7lb";

/// The largest integer of Structured Fields (RFC 9651 §3.3.1).
const MAX_INTEGER: i64 = 999_999_999_999_999;

/// Why a request is forwarded (§2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The cache is not used for this request.
    Bypass,
    /// The semantics of the method require it.
    Method,
    /// No response is stored under the key.
    UriMiss,
    /// Stored responses exist, but Vary selects none of them.
    VaryMiss,
    /// No stored response fits; which of the two is unknown.
    Miss,
    /// The response is fresh, but the request demands a validation.
    Request,
    /// The response is stale.
    Stale,
    /// The stored response is partial.
    Partial,
}

impl Forward {
    /// The token of the field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// Where the response is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the cache, without a request to the backend (§2.1).
    Hit,
    /// From a request to the backend.
    Forwarded {
        /// Why the request was forwarded.
        reason: Forward,
        /// The status of the backend, if it differs from that of the response (§2.3).
        status: Option<StatusCode>,
        /// Whether the response is stored (§2.5).
        stored: bool,
        /// Whether another request to the backend served this one too (§2.6).
        collapsed: bool,
    },
}

/// The facts in the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// Where the response is from.
    pub outcome: Outcome,
    /// Seconds of freshness that remain; negative if it is stale (§2.4).
    pub ttl: Option<i64>,
    /// The cache key, if the route reveals it (§2.7).
    pub key: Option<&'a str>,
    /// Further information, such as `Refusal::as_str` (§2.8).
    pub detail: Option<&'a str>,
}

impl CacheStatus<'_> {
    /// The value of the field.
    #[must_use]
    pub fn value(&self) -> HeaderValue {
        let mut text = String::with_capacity(48);
        text.push_str(CACHE);
        self.push_outcome(&mut text);
        if let Some(ttl) = self.ttl {
            // Writing to a string does not fail.
            write!(text, "; ttl={}", ttl.clamp(-MAX_INTEGER, MAX_INTEGER)).unwrap_or_default();
        }
        if let Some(key) = self.key {
            text.push_str("; key=");
            push_string(&mut text, key);
        }
        if let Some(detail) = self.detail {
            text.push_str("; detail=");
            if is_token(detail) { text.push_str(detail) } else { push_string(&mut text, detail) }
        }
        // The text has only printable ASCII characters, so this does not fail.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(CACHE))
    }

    fn push_outcome(&self, text: &mut String) {
        let Outcome::Forwarded { reason, status, stored, collapsed } = self.outcome else {
            text.push_str("; hit");
            return;
        };
        text.push_str("; fwd=");
        text.push_str(reason.as_str());
        if let Some(status) = status {
            text.push_str("; fwd-status=");
            text.push_str(status.as_str());
        }
        if stored {
            text.push_str("; stored");
        }
        if collapsed {
            text.push_str("; collapsed");
        }
    }

    /// Adds the field to a response. The members of caches behind this one stay, and come first (§2).
    pub fn append_to(&self, headers: &mut HeaderMap) {
        headers.append(CACHE_STATUS, self.value());
    }
}

/// Whether the text is a token of Structured Fields (RFC 9651 §3.3.4).
fn is_token(text: &str) -> bool {
    let starts = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*');
    starts && text.bytes().all(|byte| super::directives::is_token(byte) || matches!(byte, b':' | b'/'))
}

#[cfg(test)]
#[path = "cache_status_tests.rs"]
mod tests;
