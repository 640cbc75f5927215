//! An explanation by a running process: the state of limits for this client, the backends, the likely pick, and what the cache has.
//! Nothing is counted, and policies do not advance.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pingora_http::RequestHeader;

use super::example::{EvaluatedLimit, ExampleRequest};
use super::explanation::{Explanation, RejectionDetails};
use super::request_affinity::RequestAffinity;
use crate::base::backend_address::BackendAddress;
use crate::config::listener;
use crate::decision::snapshot::{Route, Snapshot};
use crate::http::client_address::ClientKey;
use crate::http::rejection::Rejection;
use crate::routing::affinity::Scope;

/// The time of the explanation.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// In the clock of limits and backends.
    pub now: Instant,
    /// In the clock of cookies.
    pub time: SystemTime,
}

/// Explains the current outcome of `example`.
#[must_use]
pub async fn explain(
    example: &ExampleRequest,
    snapshot: &Snapshot,
    listeners: &[listener::Spec],
    at: Moment,
) -> Explanation {
    let client = ClientKey::from(example.client(snapshot));
    let outcome = example.outcome_with_limits(snapshot, listeners, |limiter| {
        let verdict = limiter.look(client, at.now);
        let rejected = Rejection::RateLimited { retry_after: verdict.retry_after };
        (
            EvaluatedLimit { spec: *limiter.spec(), verdict: Some(verdict) },
            if verdict.admitted { Ok(()) } else { Err(rejected) },
        )
    });
    let is_forwarded = outcome.decision.rejection.is_none() && outcome.own_words().is_none();
    let matched = outcome.decision.route.clone().filter(|_| is_forwarded);
    let request = outcome.request.clone();
    let mut explanation = Explanation::new(outcome, snapshot);
    if let (Some(route), Some(request)) = (matched, request) {
        preview_pools(&mut explanation, &route, &request, at);
        if let (Some(explained), Some(cache)) = (&mut explanation.cache, &route.cache) {
            explained.look(&request, cache, at).await;
        }
    }
    explanation
}

fn preview_pools(explanation: &mut Explanation, route: &Route, request: &RequestHeader, at: Moment) {
    let seconds = at.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let affinity = RequestAffinity::of(route, &request.headers, explanation.client, seconds);
    explanation.affinity = words(affinity);
    if let Some(index) = affinity.share(route) {
        let chances = explanation.pools.iter_mut().enumerate();
        chances.for_each(|(position, share)| share.chance = f64::from(u8::from(position == index)));
    }
    let is_bound =
        route.sticky.as_ref().is_some_and(|sticky| sticky.scope == Scope::Backend) && affinity != RequestAffinity::None;
    let score = |address: BackendAddress| affinity.score(address);
    let bound: Option<&dyn Fn(BackendAddress) -> Option<u64>> = if is_bound { Some(&score) } else { None };
    let mut rejection = None;
    for (target, share) in route.targets.iter().zip(&mut explanation.pools).filter(|(_, share)| share.chance > 0.0) {
        let preview = target.pool.preview(target.pool.key(explanation.client, request), bound, at.now);
        (share.candidates, share.zones) = (Some(preview.candidates), preview.zones);
        (share.in_flight, share.waiting) = (Some(target.pool.in_flight()), target.pool.queued_requests());
        rejection = rejection.or(preview.rejection);
    }
    explanation.pick();
    // If one of several pools could serve it, the rejection is not certain.
    if explanation.picked.is_none() {
        explanation.rejection = rejection.map(|rejection| RejectionDetails::new(rejection, ""));
    }
}

fn words(affinity: RequestAffinity) -> Option<String> {
    match affinity {
        RequestAffinity::None => None,
        RequestAffinity::Cookie(cookie) => Some(format!("cookie, backend {}", cookie.backend)),
        RequestAffinity::Hash(_) => Some("hash of the configured `sticky` value".to_owned()),
    }
}
