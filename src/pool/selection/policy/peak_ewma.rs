//! Peak EWMA: of two backends drawn by weight, the one with the lower expected latency.
//!
//! **Optimises** the latency for clients. The expected latency is the recent latency of the backend, multiplied
//! by one plus its requests in flight per unit of weight. The recent latency is a moving average that rises to
//! each peak immediately and decays slowly (the algorithm of Finagle and Linkerd), see `pool/latency.rs`. A
//! failure counts as a very slow response, so that failing fast does not attract requests. The time that
//! requests have waited without a response counts as latency, so that a hanging backend gets one or two
//! requests and no more.
//! **Cost**: two draws and two exponentials.
//! **Not for** pools whose requests differ much in cost (a report and a health page): the average then depends
//! on the requests rather than on the backend. So that one slow report does not move all traffic away for a
//! minute, the latency of a backend counts for at most [`RATIO_MAX`] times that of the other.
//!
//! A backend without a measurement gets one request; further requests wait for its result.

use std::time::Instant;

use crate::pool::selection::choice::{Member, Policy, SelectionRequest};
use crate::pool::selection::policy::random::{Weighted, better_of_two};

/// The largest ratio of two latencies that is taken into account. The slower backend gets no request while the
/// faster one has fewer in flight than this.
const RATIO_MAX: f64 = 16.0;

/// Draws two members and compares their expected latency.
pub struct PeakEwma(Weighted);

/// The latency in seconds: zero for a backend without requests so far, infinite while its first response is
/// pending.
fn latency(member: &Member, now: Instant) -> f64 {
    let measured = member.endpoint.latency(now).as_secs_f64();
    match member.endpoint.in_flight() {
        0 => measured,
        _ if measured == 0.0 => f64::INFINITY,
        _ => measured,
    }
}

/// The expected latency of a request, given the latencies of both.
fn cost(member: &Member, own: f64, other: f64) -> f64 {
    let ahead = f64::from(member.endpoint.in_flight()) / f64::from(member.weight.max(1));
    let limited = match (own.is_finite(), other.is_finite()) {
        (false, false) => 1.0,
        // The other backend has no measurement, and must get its first request.
        _ if other == 0.0 => own,
        _ => own.min(other * RATIO_MAX),
    };
    limited * (1.0 + ahead)
}

fn is_better(first: &Member, second: &Member, now: Instant) -> bool {
    let (first_latency, second_latency) = (latency(first, now), latency(second, now));
    cost(second, second_latency, first_latency) < cost(first, first_latency, second_latency)
}

impl Policy for PeakEwma {
    type Config = ();

    fn build((): &(), members: &[Member]) -> Self {
        Self(Weighted::build(&(), members))
    }

    fn choose(&self, members: &[Member], request: &mut SelectionRequest<'_>) -> Option<usize> {
        better_of_two(&self.0, members, request, |first, second, request| is_better(first, second, request.now))
    }

    /// The expected latency in seconds, compared to an equally fast backend; `None` while the first response is
    /// pending.
    fn score(&self, member: &Member, now: Instant) -> Option<f64> {
        let own = latency(member, now);
        own.is_finite().then(|| cost(member, own, own))
    }
}
