//! Explains how a request uses the cache of its route, and in a running process what is stored for it.

use std::fmt;

use http::header;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::announced_body;
use super::cache_key::{self, BodyFacts, BypassReason, Usage};
use super::live::Moment;
use crate::cache::policy::{self, Reuse};
use crate::cache::vary::VaryNames;
use crate::cache::{Found, RouteCache, StoreKind, key, store};
use crate::http::upgrade;

/// How a request uses the cache of its route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheExplanation {
    /// The store of the route.
    pub store: StoreKind,
    /// Whether it uses the cache.
    pub used: bool,
    /// Why it does not.
    pub bypass: Option<BypassReason>,
    /// Its key in a form for people.
    pub key: String,
    /// What is stored; missing without a running process, and if the cache is not used.
    pub state: Option<StoredState>,
}

/// What is stored for a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredState {
    /// The stored response that the request selects; missing if there is none.
    pub response: Option<StoredResponse>,
    /// The request headers that select a variant of the response.
    pub variant_headers: Vec<String>,
    /// Whether the response of the key could not be stored recently, so that requests for it do not wait for each other.
    pub unstorable: bool,
    /// Where the response to the request comes from.
    pub from: ResponseSource,
}

/// A stored response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredResponse {
    /// Its status code.
    pub status: u16,
    /// Seconds until it is stale; 0 or less if it is stale.
    pub ttl: i64,
    /// Its age in seconds.
    pub age: u64,
    /// The bytes of its body; missing while it arrives.
    pub size: Option<u64>,
    /// Whether a soft purge concerns it.
    pub soft_purged: bool,
}

/// Where the response to a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseSource {
    /// The stored response.
    Stored,
    /// The stored response, which is stale.
    Stale,
    /// The stored response after its validation by a backend.
    Validated,
    /// A backend.
    Backend,
    /// l7lb: the client wants a stored response only.
    NotCached,
}

impl ResponseSource {
    const fn of(reuse: Reuse) -> Self {
        match reuse {
            Reuse::Fresh => Self::Stored,
            Reuse::StaleAccepted | Reuse::Stale { while_revalidating: true, .. } => Self::Stale,
            Reuse::Stale { .. } => Self::Validated,
            Reuse::Nothing => Self::Backend,
            Reuse::OnlyIfCached => Self::NotCached,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Stored => "the stored response is sent",
            Self::Stale => "the stored response is sent although it is stale",
            Self::Validated => "the stored response is validated by a backend",
            Self::Backend => "a backend responds",
            Self::NotCached => "l7lb responds with 504, because the client wants a stored response only",
        }
    }
}

impl CacheExplanation {
    /// Whether the request, as it is forwarded, uses the cache, and its key.
    pub(super) fn new(request: &RequestHeader, route: &RouteCache) -> Self {
        let body = announced_body(request).is_some_and(|bytes| bytes > 0)
            || request.headers.contains_key(header::TRANSFER_ENCODING);
        let upgrade = upgrade::requested(request.version, &request.headers).is_some();
        let bypass = match cache_key::usage(request, BodyFacts { upgrade, body }, route) {
            Usage::Lookup => None,
            Usage::Bypass(reason) => Some(reason),
        };
        let key = key::readable(cache_key::of(request, route).primary_key());
        Self { store: route.spec.store, used: bypass.is_none(), bypass, key, state: None }
    }

    /// Whether the response comes from the store, as far as is known.
    pub(super) fn sends_stored_response(&self) -> bool {
        let from = self.state.as_ref().map(|state| state.from);
        matches!(from, Some(ResponseSource::Stored | ResponseSource::Stale))
    }

    /// Adds what is stored now, if the request uses the cache.
    pub(super) async fn look(&mut self, request: &RequestHeader, route: &RouteCache, at: Moment) {
        let Some(cache) = route.shared().filter(|_| self.used) else { return };
        let mut key = cache_key::in_store(request, route, &cache);
        // A store that fails is like one that has no response.
        let (found, names) = cache.look(&mut key, &request.headers).await.unwrap_or_default();
        let reuse = policy::reuse(found.as_ref(), &request.headers, &route.spec.rules, at.time);
        let variant_headers = match names {
            VaryNames::None | VaryNames::Any => Vec::new(),
            VaryNames::Names(names) => names.iter().map(ToString::to_string).collect(),
        };
        self.state = Some(StoredState {
            response: found.as_ref().map(|found| StoredResponse::of(found, at)),
            variant_headers,
            unstorable: cache.is_unstorable(&key, &request.headers, &route.spec.rules, at.now),
            from: ResponseSource::of(reuse),
        });
    }
}

impl StoredResponse {
    fn of(found: &Found, at: Moment) -> Self {
        let facts = policy::facts(&found.meta);
        Self {
            status: found.meta.response_header().status.as_u16(),
            ttl: facts.ttl(at.time),
            age: facts.age(at.time).as_secs(),
            size: store::complete_length(&found.body),
            soft_purged: found.expired,
        }
    }
}

impl fmt::Display for CacheExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.bypass.map_or_else(|| "used".to_owned(), |reason| format!("not used: {}", reason.words()));
        writeln!(f, "cache    {used}")?;
        writeln!(f, "  key    {} ({})", self.key, self.store)?;
        self.state.as_ref().map_or(Ok(()), |state| state.fmt(f))
    }
}

impl fmt::Display for StoredState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.response {
            Some(response) => write!(f, "  stored {response}")?,
            None => f.write_str("  stored nothing")?,
        }
        if !self.variant_headers.is_empty() {
            write!(f, "; varies by {}", self.variant_headers.join(", "))?;
        }
        if self.unstorable {
            f.write_str("; a recent response could not be stored")?;
        }
        writeln!(f, "; {}", self.from.words())
    }
}

impl fmt::Display for StoredResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.status)?;
        match self.ttl {
            ttl @ 1.. => write!(f, "fresh for {ttl} s")?,
            ttl => write!(f, "stale since {} s", ttl.unsigned_abs())?,
        }
        write!(f, ", age {} s, ", self.age)?;
        match self.size {
            Some(size) => write!(f, "{size} bytes")?,
            None => f.write_str("its body is arriving")?,
        }
        f.write_str(if self.soft_purged { ", purged softly" } else { "" })
    }
}
