//! Least requests: of two backends drawn by weight, the one with fewer requests in flight.
//!
//! **Optimises** the queue that a request joins. A slow backend keeps its requests longer, so it is
//! given fewer, without a measurement that could be wrong. Two choices are nearly as good as looking at
//! all (Mitzenmacher 2001), and unlike the global minimum they do not send a herd to one backend.
//! **Cost**: two draws, two atomic loads, whatever the number of backends.
//! **Not for** backends that fail fast: one that answers 500 at once always looks idle. Passive health
//! or `peak_ewma` sees that. In flight is what this process has sent; other balancers are not seen.

use std::time::Instant;

use crate::pool::selection::choice::{Ask, Member, Policy};
use crate::pool::selection::policy::random::{Weighted, better_of_two};

/// Draws two, compares their requests in flight for each unit of weight.
pub struct LeastRequests(Weighted);

impl Policy for LeastRequests {
    type Config = ();

    fn build((): &(), members: &[Member]) -> Self {
        Self(Weighted::build(&(), members))
    }

    fn choose(&self, members: &[Member], ask: &mut Ask<'_>) -> Option<usize> {
        better_of_two(&self.0, members, ask, |first, second, _| {
            let load = |one: &Member, other: &Member| u64::from(one.endpoint.in_flight()) * u64::from(other.weight);
            load(second, first) < load(first, second)
        })
    }

    /// Requests in flight for each unit of weight.
    fn score(&self, member: &Member, _now: Instant) -> Option<f64> {
        Some(f64::from(member.endpoint.in_flight()) / f64::from(member.weight.max(1)))
    }
}
