//! Consistent hash: requests with the same key go to the same backend.
//!
//! **Optimises** the use of state on backends (caches, sessions). When a backend is added or removed, only its own
//! share of the keys moves. The ring is ketama: each backend has many points on a circle, and a key belongs to the
//! next point. Loads are bounded (Mirrokni et al. 2016): when a backend has more than 1.25 times its share of the
//! requests in flight, its keys go to the next backend, so a single popular key cannot overload one backend.
//! **Cost**: one index lookup and a few steps on the ring.
//! **Not for** backends without such state: the distribution is less even than round robin, and a slow backend
//! keeps its keys. A request without the key (for example without the header) goes to a random backend.
//!
//! The ring depends only on addresses and weights, so several l7lb processes choose the same backend for a key.

use crate::pool::selection::choice::{Member, Policy, SelectionRequest};
use crate::pool::selection::key::{Key, mix};

/// Points of a backend of average weight.
const POINTS: f64 = 160.0;

/// The load bound as a fraction: 5/4.
const BOUND: (u64, u64) = (5, 4);

/// The points of the members on the circle.
pub struct Ring {
    /// Points and their members, in order.
    points: Box<[(u64, u32)]>,
    /// For each value of a key's leading bits, the first point that the key may belong to.
    starts: Box<[u32]>,
    shift: u32,
    total_weight: u64,
}

impl Ring {
    fn position(&self, key: Key) -> usize {
        let hash = key.0;
        let start = self.starts.get((hash >> self.shift) as usize).copied().unwrap_or_default() as usize;
        let offset = self.points.get(start..).unwrap_or_default().iter().take_while(|point| point.0 < hash).count();
        start + offset
    }

    fn has_room(&self, member: &Member, traffic_share: f64) -> bool {
        let endpoint = &member.endpoint;
        let in_flight = u64::from(endpoint.in_flight());
        let all = (f64::from(endpoint.pool_in_flight()) * traffic_share) as u64 + 1;
        let (times, of) = BOUND;
        // The bound, rounded up to a whole number of requests.
        let bound = (all * u64::from(member.weight) * times).div_ceil(self.total_weight * of);
        in_flight < bound
    }
}

impl Policy for Ring {
    type Config = ();

    fn build((): &(), members: &[Member]) -> Self {
        let total_weight = members.iter().map(|member| u64::from(member.weight)).sum::<u64>().max(1);
        let mean = total_weight as f64 / members.len().max(1) as f64;
        let mut points = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let address = Key::of(member.endpoint.address_text().as_bytes()).0;
            let count = (f64::from(member.weight) / mean * POINTS).round().max(1.0) as u64;
            points.extend((0..count).map(|point| (mix(address.wrapping_add(mix(point))), index as u32)));
        }
        points.sort_unstable();
        // About one point for each value of the leading bits.
        let bits = points.len().max(2).next_power_of_two().ilog2();
        let shift = u64::BITS - bits;
        let starts = (0..1_u64 << bits).map(|prefix| points.partition_point(|point| point.0 < prefix << shift) as u32);
        Self { starts: starts.collect(), points: points.into(), shift, total_weight }
    }

    fn choose(&self, members: &[Member], request: &mut SelectionRequest<'_>) -> Option<usize> {
        let key = if request.key == Key::NONE { Key(request.random.u64(..)) } else { request.key };
        let position = self.position(key);
        let (before, from) = self.points.split_at_checked(position).unwrap_or_default();
        let mut first_over_bound = None;
        for (_, index) in from.iter().chain(before) {
            let index = *index as usize;
            let member = members.get(index)?;
            if !request.accepts(member) {
                continue;
            }
            if self.has_room(member, request.traffic_share) {
                return Some(index);
            }
            first_over_bound.get_or_insert(index);
        }
        first_over_bound
    }
}
