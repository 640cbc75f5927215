//! The primary backends of a pool by zone, for a balancer that is in one of these zones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::units::Zone;
use crate::pool::endpoint::Endpoint;
use crate::pool::selection::choice::{Member, Policy, SelectionRequest};
use crate::pool::selection::key::Key;
use crate::pool::selection::prepared_group::PreparedGroup;
use crate::pool::selection::zone_preference::{ZonePreference, ZoneShare};
use crate::pool::selection::zones::{CachedShares, Shares, fair_share};

/// The backends of one zone.
struct Group<P> {
    /// `None` for the backends without a zone.
    zone: Option<Zone>,
    backends: PreparedGroup<P>,
}

/// The zones of a pool, one of which is the local zone.
pub(in crate::pool::selection) struct ZoneGroups<P> {
    groups: Box<[Group<P>]>,
    /// Hashes of the names of the zones.
    seeds: Box<[u64]>,
    /// The index of the local zone.
    local: usize,
    shares: CachedShares,
}

impl<P: Policy> ZoneGroups<P> {
    /// The zones of the primary backends among `members`. `None` if there is no preference: `local` is not known, no
    /// primary backend is in it, or all of them are.
    pub(in crate::pool::selection) fn new(
        config: &P::Config,
        local: Option<&Zone>,
        members: &[Member],
    ) -> Option<Self> {
        let local = local?;
        let mut zones: BTreeMap<Option<Zone>, Vec<Member>> = BTreeMap::new();
        for member in members.iter().filter(|member| !member.endpoint.is_backup()) {
            zones.entry(member.endpoint.zone()).or_default().push(member.clone());
        }
        if zones.len() < 2 {
            return None;
        }
        let local = zones.keys().position(|zone| zone.as_ref() == Some(local))?;
        let seed = |zone: &Option<Zone>| zone.as_ref().map_or(0, |zone| Key::of(zone.as_str().as_bytes()).0);
        let seeds = zones.keys().map(seed).collect();
        let group = |(zone, members)| Group { zone, backends: PreparedGroup::new(config, members) };
        Some(Self { groups: zones.into_iter().map(group).collect(), seeds, local, shares: CachedShares::default() })
    }

    /// A backend in the zone that this request belongs to. `None` if no backend there accepts the request.
    pub(in crate::pool::selection) fn endpoint(&self, request: &mut SelectionRequest<'_>) -> Option<Arc<Endpoint>> {
        let (now, slow_start) = (request.now, request.slow_start);
        let compute = || Shares::new(&self.capacities(now, slow_start), self.local);
        let (zone, share) = self.shares.with(now, compute, |shares| {
            let zone = match request.key {
                Key::NONE => shares.draw(&mut request.random),
                key => shares.of_key(key, &self.seeds),
            }?;
            Some((zone, shares.of(zone)))
        })?;
        request.traffic_share = share;
        let chosen = self.groups.get(zone).and_then(|group| group.backends.endpoint(request));
        request.traffic_share = 1.0;
        chosen
    }

    /// The capacity of each zone.
    fn capacities(&self, now: Instant, slow_start: Duration) -> Vec<f64> {
        self.groups.iter().map(|group| capacity(&group.backends.members, now, slow_start)).collect()
    }

    /// The preference at `now`.
    pub(in crate::pool::selection) fn preference(&self, now: Instant, slow_start: Duration) -> Option<ZonePreference> {
        let local = self.groups.get(self.local)?.zone.clone()?;
        let capacities = self.capacities(now, slow_start);
        let shares = Shares::new(&capacities, self.local)?;
        let zone = |(index, (group, capacity)): (usize, (&Group<P>, &f64))| ZoneShare {
            zone: group.zone.clone(),
            backends: group.backends.members.len(),
            capacity: *capacity,
            share: shares.of(index),
        };
        let zones = self.groups.iter().zip(&capacities).enumerate().map(zone).collect();
        Some(ZonePreference { local, fair_capacity: fair_share(&capacities), zones })
    }
}

/// The weight of the backends that may get requests. During slow start, only a part of the weight counts. Ejected
/// backends and those with an open circuit breaker do not count.
fn capacity(members: &[Member], now: Instant, slow_start: Duration) -> f64 {
    let is_open = |endpoint: &Endpoint| endpoint.circuit().is_some_and(|circuit| circuit.is_open(now));
    let counts =
        |endpoint: &Endpoint| endpoint.is_available() && !endpoint.passive_health().is_ejected() && !is_open(endpoint);
    let counted = members.iter().filter(|member| counts(&member.endpoint));
    counted.map(|member| f64::from(member.weight) * member.endpoint.slow_start_factor(now, slow_start)).sum()
}
