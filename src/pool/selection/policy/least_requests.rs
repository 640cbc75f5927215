//! Least requests: of two backends drawn by weight, the one with fewer requests in flight.
//!
//! **Optimises** the number of requests that a request shares its backend with. A slow backend keeps its requests
//! longer, so it gets fewer, without a measurement that could be wrong. Two choices are nearly as good as comparing
//! all backends (Mitzenmacher 2001). Unlike the global minimum, they do not send a burst to one backend.
//! **Cost**: two draws and two atomic loads, for any number of backends.
//! **Not for** backends that fail fast: a backend that responds with 500 immediately always looks idle. Passive
//! health and `peak_ewma` detect that. Only the requests of this process count, not those of other balancers.

use std::time::Instant;

use crate::pool::selection::choice::{Member, Policy, SelectionRequest};
use crate::pool::selection::policy::random::{Weighted, better_of_two};

/// Draws two members and compares their requests in flight per unit of weight.
pub struct LeastRequests(Weighted);

impl Policy for LeastRequests {
    type Config = ();

    fn build((): &(), members: &[Member]) -> Self {
        Self(Weighted::build(&(), members))
    }

    fn choose(&self, members: &[Member], request: &mut SelectionRequest<'_>) -> Option<usize> {
        better_of_two(&self.0, members, request, |first, second, _| {
            let load = |one: &Member, other: &Member| u64::from(one.endpoint.in_flight()) * u64::from(other.weight);
            load(second, first) < load(first, second)
        })
    }

    /// Requests in flight per unit of weight.
    fn score(&self, member: &Member, _now: Instant) -> Option<f64> {
        Some(f64::from(member.endpoint.in_flight()) / f64::from(member.weight.max(1)))
    }
}
