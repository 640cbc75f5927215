//! Checks the `timeout` filters of all chains that a request may pass, against the timeouts of its route.

use super::Checked;
use crate::base::fault::{Faults, Place};
use crate::base::timeouts::TimeoutsConfig;
use crate::filter::Chain;

/// What the `timeout` filters of a chain set; `None` if there are none.
fn of(chain: &Chain) -> Option<TimeoutsConfig> {
    let filters = chain.0.iter().filter_map(|item| item.config.timeout);
    filters.reduce(|earlier, later| later.or(earlier))
}

/// Reports chains with which an attempt may take longer than its request.
pub(super) fn check(checked: &Checked, faults: &mut Faults) {
    let root = Place::root();
    let of_file = of(&checked.filters).map(|timeouts| (root.key("filters"), timeouts));
    let of_listener = |(index, listener): (usize, &super::listener::Spec)| {
        Some((root.key("listeners").index(index).key("filters"), of(&listener.filters)?))
    };
    // No listener, or one of those whose filters set timeouts.
    let listeners: Vec<_> =
        std::iter::once(None).chain(checked.listeners.iter().enumerate().filter_map(of_listener).map(Some)).collect();
    let mut reported: Vec<Place> = Vec::new();
    for (index, route) in checked.routes.iter().enumerate() {
        let of_route = of(&route.filters).map(|timeouts| (root.key("routes").index(index).key("filters"), timeouts));
        for of_listener in &listeners {
            let chains = [of_file.as_ref(), of_listener.as_ref(), of_route.as_ref()];
            let chains = chains.into_iter().flatten();
            let Some(given) = chains.clone().map(|(_, timeouts)| *timeouts).reduce(|earlier, later| later.or(earlier))
            else {
                continue;
            };
            let problem = route.targets.iter().find_map(|target| given.over(target.timeouts).contradiction());
            // The last chain that sets one of the two.
            let place = chains.rev().find(|(_, timeouts)| timeouts.attempt.is_some() || timeouts.total.is_some());
            if let (Some(problem), Some((place, _))) = (problem, place)
                && !reported.contains(place)
            {
                reported.push(place.clone());
                faults.add(place.clone(), format!("on route {}, {problem}", route.name), "increase `total`");
            }
        }
    }
}
