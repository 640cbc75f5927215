//! What happens to a request on a route with a cache.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, StatusCode, header};
use pingora_cache::CacheKey;
use pingora_cache::lock::{LockStatus, ReadLock};
use pingora_http::RequestHeader;
use tokio::sync::mpsc;

use super::delivery::Delivery;
use super::passing::{incomplete, next, pass_on};
use super::sink::{Event, Fetch};
use crate::cache::cache_status::{self, CacheStatus, Forward};
use crate::cache::policy::{self, Reuse};
use crate::cache::storable::Refusal;
use crate::cache::{Cache, FetchPermit, Found, Outcome, RouteCache, Turn};
use crate::decision::cache_key::{self, BodyFacts, BypassReason, Usage};
use crate::http::connection_fields::{NOT_STORED, named_by_connection};
use crate::http::rejection::Rejection;
use crate::proxy::engine::OwnEngine;
use crate::proxy::engine::client::Client;
use crate::proxy::exchange::Exchange;
use crate::proxy::{phases, respond};

/// A request that waits for a response which another request fetches.
enum Waited {
    /// The response may be stored now.
    Done,
    /// It waits no longer.
    Alone,
}

impl OwnEngine {
    /// Serves a request on a route with a cache.
    pub(in crate::proxy::engine) async fn serve_cached(
        self: &Arc<Self>,
        client: &mut impl Client,
        exchange: &mut Exchange,
        route: Arc<RouteCache>,
    ) -> pingora::Result<()> {
        let Some(cache) = route.shared() else { return self.forward(client, exchange).await };
        remove_connection_fields(client.request_mut());
        match usage(client, exchange, &route) {
            Usage::Lookup => {
                exchange.note(client, &self.proxy.recorder);
                self.look_up(client, exchange, (route, cache)).await
            }
            Usage::Bypass(BypassReason::UnsafeMethod) => {
                exchange.affects_cache = Some(Arc::clone(&route));
                self.pass(client, exchange, &route, (Outcome::Bypass, Forward::Method)).await
            }
            Usage::Bypass(_) => self.pass(client, exchange, &route, (Outcome::Bypass, Forward::Bypass)).await,
        }
    }

    /// Forwards a request without the cache.
    async fn pass(
        &self,
        client: &mut impl Client,
        exchange: &mut Exchange,
        route: &RouteCache,
        (outcome, reason): (Outcome, Forward),
    ) -> pingora::Result<()> {
        tell(exchange, route, outcome, not_stored(reason, None));
        self.forward(client, exchange).await
    }

    async fn look_up(
        self: &Arc<Self>,
        client: &mut impl Client,
        exchange: &mut Exchange,
        (route, cache): (Arc<RouteCache>, Arc<Cache>),
    ) -> pingora::Result<()> {
        let mut key = cache_key::in_store(client.request(), &route, &cache);
        let (mut now, mut waited, mut permit) = (exchange.time, false, None::<FetchPermit>);
        let until = exchange.began().checked_add(route.spec.lock_timeout);
        loop {
            let found = find(&cache, &mut key, client).await;
            let reuse = policy::reuse(found.as_ref(), &client.request().headers, &route.spec.rules, now);
            let (stale, reason) = match (reuse, found) {
                (Reuse::Fresh, Some(found)) => {
                    // Another request has stored it just before this one got the permit.
                    permit.into_iter().for_each(|permit| permit.release(LockStatus::Done));
                    let outcome = if waited { Outcome::Collapsed } else { Outcome::Hit };
                    return deliver(client, exchange, &route, found, Use::hit(outcome)).await;
                }
                (Reuse::StaleAccepted, Some(found)) => {
                    return deliver(client, exchange, &route, found, Use::hit(Outcome::Stale)).await;
                }
                (Reuse::Stale { while_revalidating: true, .. }, Some(found)) => {
                    self.validate_in_background(client, exchange, (&route, &cache, &key), &found);
                    return deliver(client, exchange, &route, found, Use::hit(Outcome::Stale)).await;
                }
                (Reuse::Stale { on_error, reason, .. }, Some(found)) => {
                    let forward = if reason.is_of_request() { Forward::Request } else { Forward::Stale };
                    (Some((found, on_error)), forward)
                }
                (Reuse::OnlyIfCached, _) => {
                    tell(exchange, &route, Outcome::OnlyIfCached, not_stored(Forward::Request, Some("only_if_cached")));
                    return respond::reject(client, exchange, Rejection::NotCached).await;
                }
                (_, _) if key.get_variance_key().is_some() => (None, Forward::VaryMiss),
                (_, _) => (None, Forward::UriMiss),
            };
            if client.request().method != Method::GET {
                exchange.affects_cache = Some(Arc::clone(&route));
                return self.pass(client, exchange, &route, (Outcome::Bypass, Forward::Method)).await;
            }
            if permit.is_some() {
                return self.fetch_and_deliver(client, exchange, (route, cache, key), (permit, stale, reason)).await;
            }
            if stale.is_none()
                && cache.is_unstorable(&key, &client.request().headers, &route.spec.rules, exchange.began())
            {
                return self.pass(client, exchange, &route, (Outcome::Unstored, reason)).await;
            }
            if waited && stale.is_some() {
                // The response must be validated for each request; waiting in turn would only take longer.
                return self.fetch_and_deliver(client, exchange, (route, cache, key), (None, stale, reason)).await;
            }
            match cache.turn(&key, stale.is_some()) {
                // Looks again: another fetch may have ended meanwhile.
                Turn::Fetch(granted) => permit = Some(granted),
                Turn::Wait(lock) => match wait(client, &lock, until).await? {
                    Waited::Done => (now, waited) = (SystemTime::now(), true),
                    Waited::Alone => {
                        return self
                            .fetch_and_deliver(client, exchange, (route, cache, key), (None, stale, reason))
                            .await;
                    }
                },
            }
        }
    }

    /// Validates a stored response, unless another request does so already.
    fn validate_in_background(
        self: &Arc<Self>,
        client: &impl Client,
        exchange: &Exchange,
        (route, cache, key): (&Arc<RouteCache>, &Arc<Cache>, &CacheKey),
        found: &Found,
    ) {
        if let Turn::Fetch(permit) = cache.turn(key, true) {
            let (route, cache, key) = (Arc::clone(route), Arc::clone(cache), key.clone());
            let fetch = Fetch { route, cache, key, permit: Some(permit), stale: Some(policy::copy(found)) };
            self.fetch_in_background(client.request(), exchange, fetch);
        }
    }

    /// Fetches the response, and sends it or, if that fails, the stale one.
    async fn fetch_and_deliver(
        self: &Arc<Self>,
        client: &mut impl Client,
        exchange: &mut Exchange,
        (route, cache, key): (Arc<RouteCache>, Arc<Cache>, CacheKey),
        (permit, mut stale, reason): (Option<FetchPermit>, Option<(Found, bool)>, Forward),
    ) -> pingora::Result<()> {
        let known = stale.as_ref().map(|(found, _)| policy::copy(found));
        let fetch = |permit, stale| {
            let (route, cache, key) = (Arc::clone(&route), Arc::clone(&cache), key.clone());
            Fetch { route, cache, key, permit, stale }
        };
        let mut events = self.fetch(client.request(), exchange, fetch(permit, known));
        loop {
            match next(client, &mut events).await? {
                Event::Interim(mut head) => {
                    phases::response_to_client(client, &mut head, exchange)?;
                    client.start_response(head)?;
                }
                Event::Stored(stored) => {
                    let (meta, body, report) = *stored;
                    report.apply(exchange);
                    let found = Found { meta, body, expired: false };
                    let usage = Use { fetch: Some(events), ..Use::forwarded(Outcome::Miss, reason, None, true) };
                    return deliver(client, exchange, &route, found, usage).await;
                }
                Event::Validated(validated) => {
                    let (meta, report) = *validated;
                    report.apply(exchange);
                    let Some((found, _)) = stale else { return Err(incomplete()) };
                    let usage = Use::forwarded(Outcome::Revalidated, reason, Some(StatusCode::NOT_MODIFIED), true);
                    return deliver(client, exchange, &route, Found { meta, ..found }, usage).await;
                }
                // The 304 is about another response (RFC 9111 §4.3.4).
                Event::Unrelated => events = self.fetch(client.request(), exchange, fetch(None, None)),
                Event::Passed(passed) => {
                    let (head, report, refusal) = *passed;
                    if refusal == Refusal::TooLarge.as_str() && client.request().headers.contains_key(header::RANGE) {
                        // The client wants a part of what the fetch would pass on as a whole. The fetch ends.
                        drop(events);
                        tell(exchange, &route, Outcome::Unstored, not_stored(reason, Some(refusal)));
                        return self.forward(client, exchange).await;
                    }
                    report.apply(exchange);
                    if let Some((found, _)) = stale.take_if(|(_, on_error)| *on_error && is_failure(head.status)) {
                        return deliver(client, exchange, &route, found, Use::stale(reason, Some(head.status))).await;
                    }
                    tell(exchange, &route, Outcome::Unstored, not_stored(reason, Some(refusal)));
                    return pass_on(client, exchange, head, events).await;
                }
                Event::Failed(failed) => {
                    let (error, report) = *failed;
                    report.apply(exchange);
                    if let Some((found, true)) = stale {
                        exchange.rejection = None;
                        return deliver(client, exchange, &route, found, Use::stale(reason, None)).await;
                    }
                    tell(exchange, &route, Outcome::Unstored, not_stored(reason, None));
                    return match (error, exchange.rejection) {
                        (Some(e), _) => Err(e),
                        (None, Some(rejection)) => respond::reject(client, exchange, rejection).await,
                        (None, None) => Err(incomplete()),
                    };
                }
                Event::Data(_) | Event::End(_) => return Err(incomplete()),
            }
        }
    }
}

/// How a stored response is used for a request.
struct Use {
    outcome: Outcome,
    /// How the request was forwarded; `None` for a response from the cache.
    forward: Option<Forwarded>,
    /// The fetch that this client caused.
    fetch: Option<mpsc::Receiver<Event>>,
}

/// How a request was forwarded.
struct Forwarded {
    reason: Forward,
    /// The status of the backend's response, if it differs from that of the response to the client.
    status: Option<StatusCode>,
    stored: bool,
}

impl Use {
    const fn hit(outcome: Outcome) -> Self {
        Self { outcome, forward: None, fetch: None }
    }

    const fn forwarded(outcome: Outcome, reason: Forward, status: Option<StatusCode>, stored: bool) -> Self {
        Self { outcome, forward: Some(Forwarded { reason, status, stored }), fetch: None }
    }

    /// A stale response instead of an error, which may be a response of the backend.
    const fn stale(reason: Forward, status: Option<StatusCode>) -> Self {
        Self::forwarded(Outcome::Stale, reason, status, false)
    }
}

/// Removes the fields that Connection names, which no backend gets. If they selected a stored response, a client could
/// store the response to a request without them for requests that have them.
fn remove_connection_fields(request: &mut RequestHeader) {
    let is_usual = |value: &HeaderValue| [&b"keep-alive"[..], b"close"].contains(&value.as_bytes());
    if request.headers.get_all(header::CONNECTION).iter().all(is_usual) {
        return;
    }
    // Fields that are always of the connection are removed when the request is forwarded.
    for name in named_by_connection(&request.headers).iter().filter(|name| !NOT_STORED.contains(name)) {
        request.remove_header(name);
    }
}

/// The stored response for a request. A store that fails is like one that has no response.
async fn find(cache: &Cache, key: &mut CacheKey, client: &impl Client) -> Option<Found> {
    cache.lookup(key, &client.request().headers).await.unwrap_or_else(|e| {
        log::debug!("cannot read from the cache: {e}");
        None
    })
}

/// How the request uses the cache.
fn usage(client: &mut impl Client, exchange: &Exchange, route: &RouteCache) -> Usage {
    let body = !client.is_request_complete() || client.replay().is_some();
    cache_key::usage(client.request(), BodyFacts { upgrade: exchange.upgrade, body }, route)
}

/// Records how the cache was used: for the access log, the counters and Cache-Status.
fn tell(exchange: &mut Exchange, route: &RouteCache, outcome: Outcome, status: CacheStatus<'_>) {
    exchange.cache = outcome.as_str();
    route.counters.count(outcome);
    exchange.cache_status = route.spec.status_header.then(|| status.value());
}

/// Cache-Status of a response that is not stored.
fn not_stored(reason: Forward, detail: Option<&'static str>) -> CacheStatus<'static> {
    let outcome = cache_status::Outcome::Forwarded { reason, status: None, stored: false, collapsed: false };
    CacheStatus { outcome, ttl: None, key: None, detail }
}

/// Sends a stored response.
async fn deliver(
    client: &mut impl Client,
    exchange: &mut Exchange,
    route: &RouteCache,
    found: Found,
    usage: Use,
) -> pingora::Result<()> {
    let outcome = match usage.forward {
        None if usage.outcome == Outcome::Collapsed => {
            cache_status::Outcome::Forwarded { reason: Forward::Miss, status: None, stored: false, collapsed: true }
        }
        None => cache_status::Outcome::Hit,
        Some(Forwarded { reason, status, stored }) => {
            cache_status::Outcome::Forwarded { reason, status, stored, collapsed: false }
        }
    };
    let (facts, now) = (policy::facts(&found.meta), SystemTime::now());
    let (age, ttl) = (facts.age(now), Some(facts.ttl(now)));
    tell(exchange, route, usage.outcome, CacheStatus { outcome, ttl, key: None, detail: None });
    let delivery = Delivery { meta: found.meta, body: found.body, age, outcome: usage.outcome, fetch: usage.fetch };
    delivery.send(client, exchange, route).await
}

/// Waits for a response that another request fetches.
///
/// # Errors
/// If the client disconnects.
#[expect(clippy::disallowed_methods, reason = "the wait starts now")]
async fn wait(client: &mut impl Client, lock: &ReadLock, until: Option<Instant>) -> pingora::Result<Waited> {
    let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
    let waiting = tokio::time::timeout(left, lock.wait());
    tokio::select! {
        done = waiting => Ok(match (done, lock.lock_status()) {
            (Ok(()), LockStatus::Done) => Waited::Done,
            _ => Waited::Alone,
        }),
        gone = std::future::poll_fn(|cx| client.poll_disconnected(cx)) => Err(gone),
    }
}

/// Whether a stale response may be sent instead, if its freshness rules allow it (RFC 5861 §4).
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
