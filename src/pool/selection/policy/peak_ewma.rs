//! Peak EWMA: of two backends drawn by weight, the one where the request should be done sooner.
//!
//! **Optimises** the time a user waits. The expected time is the backend's recent time to answer times
//! the requests ahead of this one. The time is a moving average that jumps up to each peak at once and
//! comes down slowly (Finagle's and Linkerd's algorithm), see `pool/latency.rs`. A failure
//! counts as a very slow answer, so that failing fast does not attract traffic, and silence as a time
//! that grows while somebody waits, so that a backend that hangs gets one or two requests and no more.
//! **Cost**: two draws, two exponentials.
//! **Not for** pools whose requests differ much by nature (a report beside a health page): the average
//! then says more about what was asked than about who answered. So that one slow report does not send
//! everybody elsewhere for a minute, a backend's time counts for at most [`RATIO_MAX`] times the other's.
//!
//! A backend without a measurement gets one request; the others wait for how that one goes.

use std::time::Instant;

use crate::pool::selection::choice::{Ask, Member, Policy};
use crate::pool::selection::policy::random::{Weighted, better_of_two};

/// How many times slower than the other one a backend is at most taken to be. With less in flight than
/// that at the faster one, the slower gets nothing; with more, its share.
const RATIO_MAX: f64 = 16.0;

/// Draws two, compares the times that they promise.
pub struct PeakEwma(Weighted);

/// The backend's time in seconds; nothing is quicker than one that nobody has tried, and nothing slower
/// than one whose first answer is still awaited.
fn time(member: &Member, now: Instant) -> f64 {
    let measured = member.endpoint.latency(now).as_secs_f64();
    match member.endpoint.in_flight() {
        0 => measured,
        _ if measured == 0.0 => f64::INFINITY,
        _ => measured,
    }
}

/// What a request has to expect, given the times of both.
fn cost(member: &Member, own: f64, other: f64) -> f64 {
    let ahead = f64::from(member.endpoint.in_flight()) / f64::from(member.weight.max(1));
    let limited = match (own.is_finite(), other.is_finite()) {
        (false, false) => 1.0,
        // Nothing is known of the other, which must have its chance.
        _ if other == 0.0 => own,
        _ => own.min(other * RATIO_MAX),
    };
    limited * (1.0 + ahead)
}

fn is_better(first: &Member, second: &Member, now: Instant) -> bool {
    let (one, two) = (time(first, now), time(second, now));
    cost(second, two, one) < cost(first, one, two)
}

impl Policy for PeakEwma {
    type Config = ();

    fn build((): &(), members: &[Member]) -> Self {
        Self(Weighted::build(&(), members))
    }

    fn choose(&self, members: &[Member], ask: &mut Ask<'_>) -> Option<usize> {
        better_of_two(&self.0, members, ask, |first, second, ask| is_better(first, second, ask.now))
    }

    /// What a request has to expect beside one that is as quick, in seconds; nothing is known of one whose
    /// first answer is still awaited.
    fn score(&self, member: &Member, now: Instant) -> Option<f64> {
        let own = time(member, now);
        own.is_finite().then(|| cost(member, own, own))
    }
}
