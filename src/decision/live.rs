//! An explanation by a running process: the state of limits for this client, the backends, and the likely pick.
//! Nothing is counted, and policies do not advance.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pingora_http::RequestHeader;

use super::bond::Bond;
use super::example::{Asked, Example};
use super::explanation::{Explanation, Refusal};
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
pub fn explain(example: &Example, snapshot: &Snapshot, listeners: &[listener::Spec], at: Moment) -> Explanation {
    let client = ClientKey::from(example.client(snapshot));
    let outcome = example.outcome_by(snapshot, listeners, |limiter| {
        let verdict = limiter.look(client, at.now);
        let refused = Rejection::RateLimited { retry_after: verdict.retry_after };
        (Asked { spec: *limiter.spec(), verdict: Some(verdict) }, if verdict.admitted { Ok(()) } else { Err(refused) })
    });
    let taken = outcome.decision.route.clone().filter(|_| outcome.decision.refusal.is_none());
    let request = outcome.request.clone();
    let mut told = Explanation::new(outcome, snapshot);
    if let (Some(route), Some(request)) = (taken, request) {
        look_at_pools(&mut told, &route, &request, at);
    }
    told
}

fn look_at_pools(told: &mut Explanation, route: &Route, request: &RequestHeader, at: Moment) {
    let seconds = at.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let bond = Bond::of(route, &request.headers, told.client, seconds);
    told.bond = words(bond);
    if let Some(index) = bond.share(route) {
        let chances = told.pools.iter_mut().enumerate();
        chances.for_each(|(position, share)| share.chance = f64::from(u8::from(position == index)));
    }
    let sticks = route.sticky.as_ref().is_some_and(|sticky| sticky.scope == Scope::Backend) && bond != Bond::None;
    let wants = |address: SocketAddr| bond.wants(address);
    let bound: Option<&dyn Fn(SocketAddr) -> Option<u64>> = if sticks { Some(&wants) } else { None };
    let mut refusal = None;
    for (target, share) in route.targets.iter().zip(&mut told.pools).filter(|(_, share)| share.chance > 0.0) {
        let preview = target.pool.preview(target.pool.key(told.client, request), bound, at.now);
        share.candidates = Some(preview.candidates);
        (share.in_flight, share.waiting) = (Some(target.pool.in_flight()), target.pool.queued_requests());
        refusal = refusal.or(preview.rejection);
    }
    told.pick();
    // If one of several pools could serve it, the rejection is not certain.
    if told.picked.is_none() {
        told.refusal = refusal.map(|rejection| Refusal::new(rejection, ""));
    }
}

fn words(bond: Bond) -> Option<String> {
    match bond {
        Bond::None => None,
        Bond::Ticket(ticket) => Some(format!("cookie, backend {}", ticket.backend)),
        Bond::Hash(_) => Some("hash of the configured `sticky` value".to_owned()),
    }
}
