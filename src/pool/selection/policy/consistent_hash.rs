//! Consistent hash: requests with the same key go to the same backend.
//!
//! **Optimises** what backends remember (caches, sessions). A backend that comes or goes moves only its
//! own share of the keys. The ring is ketama's: each backend stands at many points of a circle, a
//! key belongs to the next point. Loads are bounded (Mirrokni et al. 2016): a backend with more than
//! 1.25 times its share of the requests in flight passes keys on to the next, so one popular key cannot
//! drown one backend.
//! **Cost**: one look into an index, a few steps on the ring.
//! **Not for** pools without such memory: chance is less even than turns, and a slow backend keeps its
//! keys. A request without the key (no such header) has nothing to hold on to, and goes anywhere.
//!
//! The ring depends on nothing but addresses and weights, so balancers side by side agree.

use crate::pool::selection::choice::{Ask, Member, Policy};
use crate::pool::selection::key::{Key, mix};

/// Points of a backend of average weight.
const POINTS: f64 = 160.0;

/// Bounded load as a fraction: 5/4.
const BOUND: (u64, u64) = (5, 4);

/// Where the members stand on the circle.
pub struct Ring {
    /// Points and who stands there, in order.
    points: Box<[(u64, u32)]>,
    /// For each value of a key's first bits, the first point that may be its next.
    starts: Box<[u32]>,
    shift: u32,
    total_weight: u64,
}

impl Ring {
    fn position(&self, key: Key) -> usize {
        let hash = key.0;
        let start = self.starts.get((hash >> self.shift) as usize).copied().unwrap_or_default() as usize;
        let further = self.points.get(start..).unwrap_or_default().iter().take_while(|point| point.0 < hash).count();
        start + further
    }

    fn has_room(&self, member: &Member) -> bool {
        let endpoint = &member.endpoint;
        let in_flight = u64::from(endpoint.in_flight());
        let all = u64::from(endpoint.pool_in_flight()) + 1;
        let (times, of) = BOUND;
        // The least whole number of requests that is at least the bound.
        let room = (all * u64::from(member.weight) * times).div_ceil(self.total_weight * of);
        in_flight < room
    }
}

impl Policy for Ring {
    type Config = ();

    fn build((): &(), members: &[Member]) -> Self {
        let total_weight = members.iter().map(|member| u64::from(member.weight)).sum::<u64>().max(1);
        let mean = total_weight as f64 / members.len().max(1) as f64;
        let mut points = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let address = Key::of(member.endpoint.text().as_bytes()).0;
            let count = (f64::from(member.weight) / mean * POINTS).round().max(1.0) as u64;
            points.extend((0..count).map(|point| (mix(address.wrapping_add(mix(point))), index as u32)));
        }
        points.sort_unstable();
        // About one point for each start.
        let bits = points.len().max(2).next_power_of_two().ilog2();
        let shift = u64::BITS - bits;
        let starts = (0..1_u64 << bits).map(|prefix| points.partition_point(|point| point.0 < prefix << shift) as u32);
        Self { starts: starts.collect(), points: points.into(), shift, total_weight }
    }

    fn choose(&self, members: &[Member], ask: &mut Ask<'_>) -> Option<usize> {
        let key = if ask.key == Key::NONE { Key(ask.random.u64(..)) } else { ask.key };
        let position = self.position(key);
        let (before, from) = self.points.split_at_checked(position).unwrap_or_default();
        let mut full = None;
        for (_, index) in from.iter().chain(before) {
            let index = *index as usize;
            let member = members.get(index)?;
            if !ask.accepts(member) {
                continue;
            }
            if self.has_room(member) {
                return Some(index);
            }
            full.get_or_insert(index);
        }
        full
    }
}
