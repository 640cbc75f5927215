//! References between blocks in a file that has faults of form.
//!
//! A block with a missing or misshapen key is removed before the rest is checked, so a check of the rest would miss
//! references in it, and take references to it for unknown ones. These checks use the file as written.

use serde_yaml::Value;

use super::shares;
use super::tree::Tree;
use crate::base::fault::{Fault, Faults, Place};

/// The keys that decide which requests a route matches.
const MATCHER: [&str; 10] =
    ["path", "host", "methods", "exact", "headers", "query", "cookies", "clients", "except_clients", "priority"];

/// The faults of references to pools, in a file as written.
pub(super) fn unknown_pools(tree: &Tree) -> Vec<Fault> {
    let mut faults = Faults::default();
    let pools: Vec<String> = tree.get("pools").into_iter().flat_map(Tree::entries).map(|(name, _)| name).collect();
    let mut used = Vec::new();
    for (name, place) in tree.get("routes").into_iter().flat_map(Tree::items).flat_map(pools_of) {
        if !pools.contains(&name) {
            let (problem, hint) = shares::unknown_pool(&name, pools.iter().map(String::as_str));
            faults.add(place, problem, hint);
        }
        used.push(name);
    }
    for test in tree.get("tests").into_iter().flat_map(Tree::items) {
        let Some(pool) = test.get("expect").and_then(|expect| expect.get("pool")) else { continue };
        if let Some(Value::String(name)) = pool.scalar()
            && !used.contains(name)
        {
            let (problem, hint) = super::expectation::unused(name, used.iter().map(String::as_str));
            faults.add(pool.origin.clone(), problem, hint);
        }
    }
    faults.into_vec()
}

/// The pools of a route with their places.
fn pools_of(route: &Tree) -> Vec<(String, Place)> {
    let Some(pool) = route.get("pool") else { return Vec::new() };
    match pool.scalar() {
        Some(Value::String(name)) => vec![(name.clone(), pool.origin.clone())],
        _ => pool.entries().map(|(name, share)| (name, share.origin.clone())).collect(),
    }
}

/// Whether a fault of consistency may follow from a part that was removed because of `misshapen`, in the file
/// `written`. References to pools are checked by [`unknown_pools`].
pub(super) fn is_consequence(fault: &Fault, written: &Tree, misshapen: &[Fault]) -> bool {
    let place = fault.place.as_str();
    if misshapen.iter().any(|cut| is_within(cut.place.as_str(), place) || is_within(place, cut.place.as_str())) {
        return true;
    }
    if place.starts_with("tests") && place.ends_with(".expect.pool") {
        return true;
    }
    if place.starts_with("tests") && place.ends_with(".expect.route") {
        return names_a_route(fault, written);
    }
    fault.problem.starts_with("there is no pool ") || (is_duplicate(fault) && misshapen.iter().any(decides_match))
}

/// Whether `place` is `block` or a part of it.
fn is_within(place: &str, block: &str) -> bool {
    place.strip_prefix(block).is_some_and(|rest| block.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether the route of a test is written in the file, or has no name and may be one that was removed.
fn names_a_route(fault: &Fault, written: &Tree) -> bool {
    let mut names =
        written.get("routes").into_iter().flat_map(Tree::items).filter_map(|route| route.get("name")?.scalar());
    let mut quoted = fault.problem.split('`');
    let expected = quoted.nth(1).unwrap_or_default();
    expected.contains('/') || names.any(|name| name.as_str() == Some(expected))
}

fn is_duplicate(fault: &Fault) -> bool {
    fault.place.as_str().starts_with("routes")
        && ["matches the same requests", "a request may match both"]
            .iter()
            .any(|start| fault.problem.starts_with(start))
}

/// Whether the removed part, or the key that was probably meant, decides which requests a route matches.
fn decides_match(cut: &Fault) -> bool {
    let place = cut.place.as_str();
    place.starts_with("routes")
        && MATCHER.iter().any(|key| {
            place.ends_with(&format!(".{key}"))
                || place.contains(&format!(".{key}["))
                || cut.hint.contains(&format!("`{key}"))
        })
}

#[cfg(test)]
#[path = "references_tests.rs"]
mod tests;
