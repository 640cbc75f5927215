//! Peak EWMA: of two backends drawn by weight, the one where the request should be done sooner.
//!
//! **Optimises** the time a user waits. The expected time is the backend's recent time to answer times
//! the requests ahead of this one. The time is a moving average that jumps up to each peak at once and
//! comes down slowly (Finagle's and Linkerd's algorithm), see `pool/latency.rs`. A failure
//! counts as a very slow answer, so that failing fast does not attract traffic.
//! **Cost**: two draws, two exponentials.
//! **Not for** pools whose requests differ much by nature (a report beside a health page): the average
//! then says more about what was asked than about who answered.
//!
//! A backend without a measurement gets one request; the others wait for how that one goes.

use super::random::Weighted;
use super::{Ask, Member, Policy};

/// What a backend costs that is being tried for the first time, in seconds.
const UNPROVEN: f64 = 1e6;

/// Draws two, compares the times that they promise.
pub struct PeakEwma(Weighted);

fn cost(member: &Member, ask: &Ask<'_>) -> f64 {
    let ahead = f64::from(member.endpoint.in_flight());
    let latency = member.endpoint.latency(ask.now).as_secs_f64();
    if latency == 0.0 && ahead > 0.0 {
        return UNPROVEN + ahead;
    }
    latency * (1.0 + ahead / f64::from(member.weight.max(1)))
}

impl Policy for PeakEwma {
    type Config = ();

    fn build((): &(), members: &[Member]) -> Self {
        Self(Weighted::build(&(), members))
    }

    fn choose(&self, members: &[Member], ask: &mut Ask<'_>) -> Option<usize> {
        super::better_of_two(&self.0, members, ask, |first, second, ask| cost(second, ask) < cost(first, ask))
    }
}
