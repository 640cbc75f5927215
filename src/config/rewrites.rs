//! Checks the `rewrite` filters of all chains that a request may pass, against each other and against caches.

use super::Checked;
use crate::base::fault::{Faults, Place};
use crate::filter::{Chain, rewrite};

/// The `rewrite` filters of a chain.
fn of(chain: &Chain) -> impl Iterator<Item = &rewrite::Config> {
    chain.0.iter().filter_map(|item| item.config.rewrite.as_ref())
}

/// Reports rewrites that cannot be mapped back, and those that would make stored responses wrong.
pub(super) fn check(checked: &Checked, faults: &mut Faults) {
    check_mapped_back(checked, faults);
    check_cached(checked, faults);
}

/// Several changes of a prefix cannot be mapped back, because each sees what the client requested.
fn check_mapped_back(checked: &Checked, faults: &mut Faults) {
    let count = |chain: &Chain| of(chain).filter(|rewrite| rewrite.map_back).count();
    let listeners = checked.listeners.iter().map(|listener| count(&listener.filters));
    let most_of_listener = listeners.max().unwrap_or_default();
    let of_file = count(&checked.filters);
    let mut report = |place: Place| {
        let hint = "write all changes of the prefix in one `rewrite`";
        faults.add(place, "a request passes several filters with `map_back`", hint);
    };
    if of_file > 1 {
        report(Place::root().key("filters"));
    }
    for (index, listener) in checked.listeners.iter().enumerate() {
        let own = count(&listener.filters);
        if own > 0 && own.saturating_add(of_file) > 1 {
            report(Place::root().key("listeners").index(index).key("filters"));
        }
    }
    for (index, route) in checked.routes.iter().enumerate() {
        let own = count(&route.filters);
        if own > 0 && own.saturating_add(of_file).saturating_add(most_of_listener) > 1 {
            report(Place::root().key("routes").index(index).key("filters"));
        }
    }
}

/// The key of a stored response is the requested URL, which must therefore determine what the backend gets.
fn check_cached(checked: &Checked, faults: &mut Faults) {
    for (index, route) in checked.routes.iter().enumerate().filter(|(_, route)| route.cache.is_some()) {
        let place = Place::root().key("routes").index(index).key("cache");
        let listeners = checked.listeners.iter().map(|listener| ("a listener", &listener.filters));
        let chains = [("the file", &checked.filters), ("the route", &route.filters)].into_iter().chain(listeners);
        for (whose, chain) in chains {
            if let Some(variable) = of(chain).find_map(rewrite::Config::beyond_the_url) {
                let problem =
                    format!("`rewrite` of {whose} uses `${{{variable}}}`, which is not in the key of the cache");
                faults.add(place.clone(), problem, "remove the cache or the variable");
            }
        }
        let differs = checked.listeners.iter().any(|listener| of(&listener.filters).next().is_some());
        if differs && checked.listeners.len() > 1 {
            let problem =
                "`rewrite` of a listener changes requests, but the key of the cache is the same for all listeners";
            faults.add(place, problem, "write the filter in the route, or remove the cache");
        }
    }
}
