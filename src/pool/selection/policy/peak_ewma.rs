//! Peak EWMA: the backend whose turn it is, unless another one drawn by weight is clearly better.
//!
//! **Optimises** the latency for clients. Latencies up to [`RATIO_EQUAL`] times apart count as equal, because those
//! of equal backends differ as much by chance. Among equal backends the one with fewer requests in flight per unit of
//! weight is better; if they have equally many, they take turns. Otherwise the backend with the lower expected
//! latency is better: its recent latency, multiplied by one plus its requests in flight per unit of weight.
//!
//! The recent latency is a moving average that rises to peaks quickly and decays slowly (after the algorithm of
//! Finagle and Linkerd), see `pool/learned/latency.rs`. A failure counts as a very slow response, so that failing fast does
//! not attract requests. The time that requests have waited without a response counts as latency, so that a hanging
//! backend gets one or two requests and no more. A slow backend gets no request until its latency has decayed to
//! that of the others; then one request measures it again.
//! **Cost**: a turn, a draw and two exponentials.
//! **Not for** pools whose requests differ much in cost (a report and a health page): the average then depends
//! on the requests rather than on the backend. So that one slow report does not move all traffic away for a
//! minute, the latency of a backend counts for at most [`RATIO_MAX`] times that of the other.
//!
//! A backend without a measurement gets one request; further requests wait for its result.

use std::time::Instant;

use crate::pool::selection::choice::{Member, Policy, SelectionRequest};
use crate::pool::selection::policy::random::Weighted;
use crate::pool::selection::policy::round_robin::SmoothRoundRobin;

/// Two latencies count as equal if the larger is at most this many times the smaller, or at most
/// [`DIFFERENCE_EQUAL`] larger. With exponential service times, averages of equal backends are less than twice apart.
const RATIO_EQUAL: f64 = 2.0;

/// In seconds. Smaller differences come from timers and the scheduler.
const DIFFERENCE_EQUAL: f64 = 0.001;

/// The largest ratio of two latencies that is taken into account. The slower backend gets no request while the
/// faster one has fewer in flight than this.
const RATIO_MAX: f64 = 16.0;

/// The turns of the members, and the draw of a second member.
pub struct PeakEwma {
    turns: SmoothRoundRobin,
    others: Weighted,
}

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

/// Whether neither backend is clearly faster. A backend without a measurement equals no measured one.
fn are_equal(one: f64, other: f64) -> bool {
    let (low, high) = if one < other { (one, other) } else { (other, one) };
    low == high || (low > 0.0 && high <= (low * RATIO_EQUAL).max(low + DIFFERENCE_EQUAL))
}

/// Requests in flight per unit of weight.
fn ahead(member: &Member) -> f64 {
    f64::from(member.endpoint.in_flight()) / f64::from(member.weight.max(1))
}

/// The expected latency of a request, given the latencies of both.
fn cost(member: &Member, own: f64, other: f64) -> f64 {
    // A limit of zero would hide the latency from a backend that must get its first request.
    let limited = if other == 0.0 { own } else { own.min(other * RATIO_MAX) };
    limited * (1.0 + ahead(member))
}

/// Whether `second` is clearly better than `first`, whose turn it is.
fn is_better(first: &Member, second: &Member, now: Instant) -> bool {
    let (first_latency, second_latency) = (latency(first, now), latency(second, now));
    if are_equal(first_latency, second_latency) {
        return ahead(second) < ahead(first);
    }
    cost(second, second_latency, first_latency) < cost(first, first_latency, second_latency)
}

impl Policy for PeakEwma {
    type Config = ();

    fn build((): &(), members: &[Member]) -> Self {
        Self { turns: SmoothRoundRobin::build(&(), members), others: Weighted::build(&(), members) }
    }

    fn choose(&self, members: &[Member], request: &mut SelectionRequest<'_>) -> Option<usize> {
        let first = self.turns.choose(members, request)?;
        let Some(second) = self.others.draw_accepted(members, request, Some(first)) else { return Some(first) };
        Some(if is_better(members.get(first)?, members.get(second)?, request.now) { second } else { first })
    }

    /// The expected latency in seconds, compared to an equally fast backend; `None` while the first response is
    /// pending.
    fn score(&self, member: &Member, now: Instant) -> Option<f64> {
        let own = latency(member, now);
        own.is_finite().then(|| cost(member, own, own))
    }
}

#[cfg(test)]
#[path = "peak_ewma_tests.rs"]
mod tests;
