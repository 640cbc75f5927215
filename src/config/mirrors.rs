//! Checks the `mirror` filters of all chains that a request may pass, against the pools of its route.

use super::Checked;
use crate::base::fault::{Faults, Place};
use crate::base::units::PoolName;
use crate::filter::Chain;

/// The pools that get copies.
fn of(chain: &Chain) -> impl Iterator<Item = &PoolName> {
    chain.0.iter().filter_map(|item| Some(&item.config.mirror.as_ref()?.pool))
}

/// Reports filters that send copies to a pool of the route: they would change its load, its health and its limits.
pub(super) fn check(checked: &Checked, faults: &mut Faults) {
    let root = Place::root();
    let of_file = (root.key("filters"), &checked.filters);
    let of_listener = |(index, listener): (usize, &super::listener::Spec)| {
        (root.key("listeners").index(index).key("filters"), listener.filters.clone())
    };
    let listeners: Vec<_> = checked.listeners.iter().enumerate().map(of_listener).collect();
    let mut reported: Vec<Place> = Vec::new();
    for (index, route) in checked.routes.iter().enumerate() {
        let of_route = (root.key("routes").index(index).key("filters"), &route.filters);
        let chains = listeners.iter().map(|(place, chain)| (place, chain));
        for (place, chain) in chains.chain([(&of_file.0, of_file.1), (&of_route.0, of_route.1)]) {
            let is_own = |pool: &&PoolName| route.targets.iter().any(|target| target.pool == **pool);
            if let (Some(pool), false) = (of(chain).find(is_own), reported.contains(place)) {
                reported.push(place.clone());
                let problem =
                    format!("`mirror` sends copies to pool `{pool}`, which serves route {} itself", route.name);
                faults.add(place.clone(), problem, "write another pool; it may have the same backends");
            }
        }
    }
}
