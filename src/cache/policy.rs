//! The decisions of RFC 9111 in the terms of Pingora's `CacheMeta`.

use std::time::SystemTime;

use http::response::Parts;
use http::{HeaderMap, Method, header};
use pingora_cache::CacheMeta;
use pingora_http::ResponseHeader;

use super::cookies::cookies;
use super::freshening;
use super::freshness::{Source, Times};
use super::remembered::Concerns;
use super::reuse::{self, StaleReason, StoredFacts};
use super::rules::{Rules, SetCookie};
use super::shared::Found;
use super::storable::{self, Refusal, RequestFacts, Storable};
use super::store;

/// How a stored response may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Nothing is stored.
    Nothing,
    /// Nothing may be used without a backend, and the client wants no other response (RFC 9111 §5.2.1.7).
    OnlyIfCached,
    /// It is fresh.
    Fresh,
    /// It is stale, and the client accepts that.
    StaleAccepted,
    /// It must be validated.
    Stale {
        /// Whether it may be sent while it is validated.
        while_revalidating: bool,
        /// Whether it may be sent if the validation fails.
        on_error: bool,
        /// Why.
        reason: StaleReason,
    },
}

/// Decides how a response that was found may be used for a request with these headers.
#[must_use]
pub fn reuse(found: Option<&Found>, request: &HeaderMap, rules: &Rules, now: SystemTime) -> Reuse {
    let directives = reuse::request_directives(request, rules);
    let Some(found) = found.filter(|_| !directives.no_store) else {
        return if directives.only_if_cached { Reuse::OnlyIfCached } else { Reuse::Nothing };
    };
    let facts = facts(&found.meta);
    let (while_revalidating, on_error, reason) = match reuse::judge_directives(&facts, &directives, now) {
        reuse::Reuse::Fresh { .. } if !found.expired => return Reuse::Fresh,
        reuse::Reuse::StaleAccepted { .. } if !found.expired => return Reuse::StaleAccepted,
        reuse::Reuse::Fresh { .. } => (false, facts.stale_if_error > 0, StaleReason::Expired),
        reuse::Reuse::StaleAccepted { .. } => (false, false, StaleReason::Expired),
        reuse::Reuse::Stale { may_serve_while_revalidating, may_serve_on_error, reason, .. } => {
            (may_serve_while_revalidating && !found.expired, may_serve_on_error, reason)
        }
    };
    if directives.only_if_cached && !while_revalidating {
        return Reuse::OnlyIfCached;
    }
    Reuse::Stale { while_revalidating, on_error, reason }
}

/// The facts of a stored response on which its freshness depends.
#[must_use]
pub fn facts(meta: &CacheMeta) -> StoredFacts<'_> {
    StoredFacts {
        headers: meta.headers(),
        epoch: meta.epoch(),
        fresh_until: meta.fresh_until(),
        stale_while_revalidate: meta.stale_while_revalidate_sec(),
        stale_if_error: meta.stale_if_error_sec(),
    }
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason, for logs and Cache-Status.
    pub reason: &'static str,
    /// The requests whose responses are refused for the same reason.
    pub concerns: Option<Concerns>,
}

/// What is stored of a response to a GET request with the headers `request`.
///
/// # Errors
/// The reason why it is not stored.
pub fn storable(head: &ResponseHeader, request: &HeaderMap, rules: &Rules, times: Times) -> Result<CacheMeta, Refused> {
    let facts = RequestFacts { method: &Method::GET, headers: request };
    let storable = storable::judge(&facts, head.status, &head.headers, rules, times).map_err(|refusal| Refused {
        reason: refusal.as_str(),
        concerns: match refusal {
            // A failure says nothing about the next response.
            _ if head.status.is_server_error() => None,
            Refusal::RequestNoStore | Refusal::Method => None,
            Refusal::Authorization => Some(Concerns::WithAuthorization),
            _ => Some(Concerns::All),
        },
    })?;
    if is_event_stream(&head.headers) {
        return Err(Refused { reason: "event_stream", concerns: Some(Concerns::All) });
    }
    let stated = !matches!(storable.freshness.source, Source::Heuristic | Source::DefaultTtl | Source::NegativeTtl);
    if !stated && has_other_cookie(request, &rules.key.cookies) {
        return Err(Refused { reason: "cookie", concerns: Some(Concerns::WithCookie) });
    }
    Ok(meta(head.clone(), &storable, times))
}

/// Whether the response is a stream of events, which has no end.
fn is_event_stream(response: &HeaderMap) -> bool {
    let media_type = |value: &http::HeaderValue| value.as_bytes().split(|b| *b == b';').next().map(<[u8]>::to_vec);
    let media_type = response.get(header::CONTENT_TYPE).and_then(media_type).unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// The kinds of requests that a request belongs to, for [`super::remembered::Unstorable`].
pub fn concerned(request: &HeaderMap, rules: &Rules) -> impl Iterator<Item = Concerns> {
    let authorized = request.contains_key(header::AUTHORIZATION).then_some(Concerns::WithAuthorization);
    let with_cookie = has_other_cookie(request, &rules.key.cookies).then_some(Concerns::WithCookie);
    [Some(Concerns::All), authorized, with_cookie].into_iter().flatten()
}

/// Whether the request has a cookie that is not part of the key. If the backend says nothing about caching, its response
/// may depend on it.
fn has_other_cookie(request: &HeaderMap, keyed: &[String]) -> bool {
    cookies(request).any(|(name, _)| !name.is_empty() && !keyed.iter().any(|keyed| keyed.as_bytes() == name))
}

fn meta(head: ResponseHeader, storable: &Storable, times: Times) -> CacheMeta {
    let mut parts: Parts = head.into();
    for name in &storable.removed_fields {
        parts.headers.remove(name);
    }
    // The age is computed from the epoch.
    parts.headers.remove(header::AGE);
    let freshness = &storable.freshness;
    let mut meta = CacheMeta::new(
        freshness.fresh_until(times.response),
        // A purge while the response was on its way concerns it.
        times.request,
        storable.stale_while_revalidate,
        storable.stale_if_error,
        parts.into(),
    );
    meta.set_epoch_override(freshness.epoch(times.response));
    meta
}

/// A stored response after its validation.
pub struct Validated {
    /// Its new header and freshness.
    pub meta: CacheMeta,
    /// Why it is not stored any more, if that is so.
    pub refused: Option<&'static str>,
}

/// Updates a stored response with the 304 response to its validation (RFC 9111 §4.3.4). `None` if the 304 is not about
/// it.
#[must_use]
pub fn update(
    stale: &CacheMeta,
    not_modified: &ResponseHeader,
    request: &HeaderMap,
    rules: &Rules,
    times: Times,
) -> Option<Validated> {
    let is_about_it = freshening::selects(stale.headers(), &not_modified.headers, times.response);
    is_about_it.then(|| updated(stale, not_modified, request, rules, times))
}

/// Updates a stored response with the fields of a response that freshens it (RFC 9111 §3.2).
#[must_use]
pub fn updated(
    stale: &CacheMeta,
    fresh: &ResponseHeader,
    request: &HeaderMap,
    rules: &Rules,
    times: Times,
) -> Validated {
    let mut parts: Parts = stale.response_header_copy().into();
    let cookies = if rules.set_cookie == SetCookie::Store { &[][..] } else { &[header::SET_COOKIE] };
    freshening::update_from_304(&mut parts.headers, &fresh.headers, cookies);
    let head: ResponseHeader = parts.into();
    match storable(&head, request, rules, times) {
        Ok(meta) => Validated { meta: with_identity(meta, stale), refused: None },
        Err(Refused { reason, .. }) => {
            let now = times.request;
            let meta = CacheMeta::new(now, now, 0, 0, head);
            Validated { meta: with_identity(meta, stale), refused: Some(reason) }
        }
    }
}

/// Adds the identity of the stored response: another one may have been stored meanwhile.
fn with_identity(mut meta: CacheMeta, stale: &CacheMeta) -> CacheMeta {
    if let Some(id) = stale.extensions().get::<store::EntryId>() {
        meta.extensions_mut().insert(*id);
    }
    meta
}

/// A copy of what is stored of a response, which names the stored entry. `CacheMeta` itself cannot be cloned.
#[must_use]
pub fn copy(found: &Found) -> CacheMeta {
    let meta = &found.meta;
    let mut copy = CacheMeta::new(
        meta.fresh_until(),
        meta.created(),
        meta.stale_while_revalidate_sec(),
        meta.stale_if_error_sec(),
        meta.response_header_copy(),
    );
    copy.set_epoch_override(meta.epoch());
    if let Some(id) = found.body.entry_id() {
        copy.extensions_mut().insert(store::EntryId(id.get()));
    }
    copy
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::base::fault::{Faults, Place};
    use crate::base::units::Period;
    use crate::cache::Config;

    fn rules(default_ttl: Option<u64>) -> Rules {
        let config = Config { default_ttl: default_ttl.map(Period::seconds), ..Config::default() };
        config.check(&Place::root(), &mut Faults::default()).rules
    }

    fn verdict(response: &[(&'static str, &'static str)], request: &[(&'static str, &'static str)]) -> &'static str {
        let mut head = ResponseHeader::build_no_case(200, None).unwrap();
        for (name, value) in response {
            head.append_header(*name, *value).unwrap();
        }
        let request: HeaderMap =
            request.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let times = Times { request: now, response: now };
        storable(&head, &request, &rules(Some(60)), times).map_or_else(|refused| refused.reason, |_| "stored")
    }

    #[test]
    fn response_whose_lifetime_only_the_route_gives_is_not_stored_for_a_request_with_a_cookie() {
        let cookie = [("cookie", "session=1")];
        assert_eq!(verdict(&[], &[]), "stored");
        assert_eq!(verdict(&[], &cookie), "cookie");
        assert_eq!(verdict(&[("cache-control", "max-age=60")], &cookie), "stored");
    }

    #[test]
    fn stream_of_events_is_not_stored() {
        for media_type in ["text/event-stream", "Text/Event-Stream; charset=utf-8"] {
            assert_eq!(verdict(&[("content-type", media_type), ("cache-control", "max-age=60")], &[]), "event_stream");
        }
        assert_eq!(verdict(&[("content-type", "text/event-streams")], &[]), "stored");
    }

    #[test]
    fn refusal_because_of_the_request_concerns_only_such_requests() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let times = Times { request: now, response: now };
        let head = ResponseHeader::build_no_case(200, None).unwrap();
        let concerns = |name: &'static str, value: &'static str| {
            let request = HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]);
            storable(&head, &request, &rules(Some(60)), times).err().and_then(|refused| refused.concerns)
        };
        assert_eq!(concerns("authorization", "Basic x"), Some(Concerns::WithAuthorization));
        assert_eq!(concerns("cookie", "a=1"), Some(Concerns::WithCookie));
        assert_eq!(concerns("cache-control", "no-store"), None);
    }
}
