//! Zones: which share of the requests each zone of a pool gets. Pure rules, and their cached result.
//!
//! The rule is that of Envoy's zone-aware routing, with equal traffic in each zone
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/zone_aware>). Let `W` be the
//! capacity of the pool (the weight of its available backends), `Z` the number of its zones, and `L` the capacity of the
//! local zone. The fair share of a zone is `W / Z`.
//!
//! - If `L ≥ W / Z`, every request stays in the local zone.
//! - Otherwise the fraction `L / (W / Z)` stays. The rest goes to the other zones in proportion to what they have above
//!   `W / Z`.
//!
//! If each zone has the same traffic and a balancer with this rule, each unit of weight gets the same load, whatever
//! the sizes of the zones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use fastrand::Rng;
use parking_lot::Mutex;

use crate::pool::selection::key::{Key, mix};

/// How long computed shares are used. Requests to a zone that failed in the meantime use any other.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);

/// The share of the requests that each zone gets. The shares add up to 1.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::pool) struct Shares(Box<[f64]>);

impl Shares {
    /// The shares for zones of these capacities, at the balancer of the zone with the index `local`. `None` if no zone
    /// has capacity.
    pub(in crate::pool) fn new(capacities: &[f64], local: usize) -> Option<Self> {
        let fair = fair_share(capacities);
        let own = capacities.get(local).copied().unwrap_or_default();
        if fair <= 0.0 {
            return None;
        }
        let surplus = |index: usize, capacity: f64| if index == local { 0.0 } else { (capacity - fair).max(0.0) };
        let all: f64 = capacities.iter().enumerate().map(|(index, capacity)| surplus(index, *capacity)).sum();
        // Without a surplus elsewhere, `own` is below the fair share only by rounding.
        let kept = if all > 0.0 { (own / fair).min(1.0) } else { 1.0 };
        let share = |(index, capacity): (usize, &f64)| match index == local {
            true => kept,
            false if all > 0.0 => (1.0 - kept) * surplus(index, *capacity) / all,
            false => 0.0,
        };
        Some(Self(capacities.iter().enumerate().map(share).collect()))
    }

    /// The share of a zone, from 0 to 1.
    pub(in crate::pool) fn of(&self, zone: usize) -> f64 {
        self.0.get(zone).copied().unwrap_or_default()
    }

    /// A random zone with the probabilities of the shares.
    pub(in crate::pool) fn draw(&self, random: &mut Rng) -> Option<usize> {
        if let Some(only) = self.only() {
            return Some(only);
        }
        let mut left = random.f64();
        let mut last = None;
        for (zone, share) in self.0.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            last = Some(zone);
            left -= share;
            if left < 0.0 {
                break;
            }
        }
        last
    }

    /// The zone of a key, with the probabilities of the shares over all keys: weighted rendezvous hashing. When shares
    /// change, a key moves only to a zone whose share has grown relative to that of the zone that it leaves. `seeds` are hashes of the
    /// names of the zones.
    pub(in crate::pool) fn of_key(&self, key: Key, seeds: &[u64]) -> Option<usize> {
        if let Some(only) = self.only() {
            return Some(only);
        }
        let score = |(share, seed): (&f64, &u64)| {
            // 53 bits, as many as an f64 holds, moved off zero.
            let uniform = ((mix(key.0 ^ seed) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            share / -uniform.ln()
        };
        let scores = self.0.iter().zip(seeds).map(score).enumerate().filter(|(_, score)| *score > 0.0);
        scores.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(zone, _)| zone)
    }

    /// The zone that gets every request.
    fn only(&self) -> Option<usize> {
        self.0.iter().position(|share| *share >= 1.0)
    }
}

/// The capacity that a zone has if all are equal.
pub(in crate::pool) fn fair_share(capacities: &[f64]) -> f64 {
    capacities.iter().sum::<f64>() / capacities.len().max(1) as f64
}

/// Shares, and when they were computed.
struct Computed {
    at: Instant,
    /// `None` if no zone has capacity.
    shares: Option<Shares>,
}

/// Shares that are computed again at most every 100 ms, so that a pick does not examine every backend.
#[derive(Default)]
pub(in crate::pool) struct CachedShares {
    current: ArcSwapOption<Computed>,
    /// Held by the one request that computes them; the others use the previous ones.
    computing: Mutex<()>,
}

impl CachedShares {
    /// Calls `with` with the shares at `now`; `compute` computes them.
    pub(in crate::pool) fn with<R>(
        &self,
        now: Instant,
        compute: impl FnOnce() -> Option<Shares>,
        with: impl FnOnce(&Shares) -> Option<R>,
    ) -> Option<R> {
        let current = self.current.load();
        let is_recent = |computed: &Computed| now.saturating_duration_since(computed.at) < REFRESH_INTERVAL;
        if let Some(computed) = current.as_deref()
            && is_recent(computed)
        {
            return with(computed.shares.as_ref()?);
        }
        let Some(_computing) = self.computing.try_lock() else {
            return with(current.as_deref()?.shares.as_ref()?);
        };
        let computed = Arc::new(Computed { at: now, shares: compute() });
        self.current.store(Some(Arc::clone(&computed)));
        with(computed.shares.as_ref()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(capacities: &[f64], local: usize) -> Vec<f64> {
        Shares::new(capacities, local).unwrap().0.into()
    }

    fn assert_close(a: f64, b: f64, context: &dyn std::fmt::Debug) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}: {context:?}");
    }

    #[test]
    fn requests_stay_local_while_the_zone_has_its_fair_share() {
        assert_eq!(shares(&[2.0, 2.0, 2.0], 0), [1.0, 0.0, 0.0]);
        assert_eq!(shares(&[2.0, 1.0, 3.0], 0), [1.0, 0.0, 0.0], "exactly the fair share");
        assert_eq!(shares(&[9.0, 1.0], 0), [1.0, 0.0]);
        assert_eq!(shares(&[0.1, 0.1, 0.1], 2), [0.0, 0.0, 1.0], "rounding does not divert requests");
        assert_eq!(shares(&[1.0, 0.0], 0), [1.0, 0.0]);
    }

    #[test]
    fn small_zone_keeps_its_part_and_the_rest_goes_to_zones_with_a_surplus() {
        assert_eq!(shares(&[1.0, 9.0], 0), [0.2, 0.8]);
        // The fair share is 4: zone 0 keeps a quarter, zone 1 has no surplus, zones 2 and 3 have 2 and 3.
        assert_eq!(shares(&[1.0, 2.0, 6.0, 7.0], 0), [0.25, 0.0, 0.75 * 2.0 / 5.0, 0.75 * 3.0 / 5.0]);
        assert_eq!(shares(&[0.0, 2.0, 4.0], 0), [0.0, 0.0, 1.0], "zone 1 has just its own fair share");
    }

    #[test]
    fn pool_without_capacity_has_no_shares() {
        assert_eq!(Shares::new(&[0.0, 0.0], 0), None);
        assert_eq!(Shares::new(&[], 0), None);
    }

    /// Every combination of up to four zones with capacities from 0 to 5, and random ones.
    fn cases() -> Vec<Vec<f64>> {
        let mut cases = Vec::new();
        for zones in 2..=4_u32 {
            for case in 0..6_u32.pow(zones) {
                cases.push((0..zones).map(|zone| f64::from(case / 6_u32.pow(zone) % 6)).collect());
            }
        }
        let mut random = Rng::with_seed(5);
        for _ in 0..5_000 {
            let zones = random.usize(2..12);
            cases.push((0..zones).map(|_| if random.u8(..4) == 0 { 0.0 } else { random.f64() * 100.0 }).collect());
        }
        cases.retain(|capacities: &Vec<f64>| capacities.iter().sum::<f64>() > 0.0);
        cases
    }

    #[test]
    fn shares_add_up_to_1_and_no_zone_exceeds_its_fair_load_for_any_capacities() {
        for capacities in cases() {
            let zones = capacities.len() as f64;
            let all: f64 = capacities.iter().sum();
            let mut load = vec![0.0; capacities.len()];
            for local in 0..capacities.len() {
                let shares = shares(&capacities, local);
                assert_close(shares.iter().sum(), 1.0, &capacities);
                for (zone, share) in shares.iter().enumerate() {
                    assert!((0.0..=1.0).contains(share), "{capacities:?}");
                    assert!(capacities[zone] > 0.0 || *share < 1e-9, "no capacity, no requests: {capacities:?}");
                    assert!(
                        zone == local || capacities[zone] > fair_share(&capacities) || *share < 1e-9,
                        "a zone without a surplus gets no requests of others: {capacities:?}"
                    );
                    load[zone] += share / zones;
                }
                if capacities[local] > fair_share(&capacities) {
                    assert_close(shares[local], 1.0, &capacities);
                } else {
                    assert_close(shares[local] / zones, capacities[local] / all, &"a small zone has the fair load");
                }
            }
            // With one balancer and the same traffic in each zone, load follows weight.
            for (load, capacity) in load.iter().zip(&capacities) {
                assert_close(*load, capacity / all, &capacities);
            }
        }
    }

    #[test]
    fn draws_and_keys_follow_the_shares() {
        let shares = Shares::new(&[1.0, 2.0, 6.0, 7.0], 0).unwrap();
        let seeds = [11, 22, 33, 44];
        let mut random = Rng::with_seed(3);
        let (mut drawn, mut of_keys) = ([0; 4], [0; 4]);
        for key in 0..100_000_u64 {
            drawn[shares.draw(&mut random).unwrap()] += 1;
            of_keys[shares.of_key(Key::of(&key.to_le_bytes()), &seeds).unwrap()] += 1;
        }
        for zone in 0..4 {
            for count in [drawn[zone], of_keys[zone]] {
                assert!((f64::from(count) / 1e5 - shares.of(zone)).abs() < 0.01, "{drawn:?} {of_keys:?}");
            }
        }
        assert_eq!((drawn[1], of_keys[1]), (0, 0));
    }

    #[test]
    fn key_moves_only_out_of_the_local_zone_when_its_capacity_shrinks() {
        let seeds = [11, 22, 33];
        let zone = |key: u64, own: f64| {
            Shares::new(&[own, 30.0, 30.0], 0).unwrap().of_key(Key::of(&key.to_le_bytes()), &seeds).unwrap()
        };
        let mut moved = 0;
        for key in 0..10_000 {
            let (more, less) = (zone(key, 10.0), zone(key, 8.0));
            assert!(more == less || more == 0, "key {key} moved from zone {more} to {less}");
            moved += usize::from(more != less);
        }
        let kept = |own: f64| Shares::new(&[own, 30.0, 30.0], 0).unwrap().of(0);
        let expected = kept(10.0) - kept(8.0);
        assert!((moved as f64 / 1e4 - expected).abs() < 0.01, "{moved} moved, expected {expected}");
    }

    #[test]
    fn shares_are_computed_once_in_100_ms() {
        #[expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]
        let start = Instant::now();
        let cache = CachedShares::default();
        let mut computed = 0;
        let mut at = |milliseconds: u64, capacities: [f64; 2]| {
            let now = start + Duration::from_millis(milliseconds);
            let compute = || {
                computed += 1;
                Shares::new(&capacities, 0)
            };
            let share = cache.with(now, compute, |shares| Some(shares.of(0)));
            (share, computed)
        };
        assert_eq!(at(1_000, [1.0, 1.0]), (Some(1.0), 1));
        assert_eq!(at(1_099, [0.0, 1.0]), (Some(1.0), 1));
        assert_eq!(at(900, [0.0, 1.0]), (Some(1.0), 1), "an earlier time of another thread");
        assert_eq!(at(1_100, [0.0, 1.0]), (Some(0.0), 2));
        assert_eq!(at(1_200, [0.0, 0.0]), (None, 3), "no preference without capacity");
        assert_eq!(at(1_299, [1.0, 1.0]), (None, 3));
    }
}
