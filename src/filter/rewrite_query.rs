//! Rewritten queries: parameters that are set or removed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::variables::{Scope, Template, Values};
use crate::base::fault::{Faults, Place};
use crate::http::target;

/// Changes to the query, applied in this order: remove, set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Names of parameters to remove.
    pub remove: Vec<String>,
    /// Parameters that replace all parameters of the same name, with variables.
    pub set: BTreeMap<String, String>,
}

impl Config {
    pub(super) fn check(&self, place: &Place, faults: &mut Faults) -> Query {
        let (place_of_remove, place_of_set) = (place.key("remove"), place.key("set"));
        let mut check_name = |name: &str, place: Place| {
            if name.is_empty() {
                faults.add(place, "the name of the parameter is empty", "write for example `page`");
            }
        };
        self.remove.iter().enumerate().for_each(|(at, name)| check_name(name, place_of_remove.index(at)));
        self.set.keys().for_each(|name| check_name(name, place_of_set.key(name)));
        let set = self.set.iter().filter_map(|(name, value)| {
            let value = Template::check(value, Scope::Request, &place_of_set.key(name), faults)?;
            Some((name.clone(), value))
        });
        Query { set: set.collect(), remove: self.remove.clone() }
    }
}

/// The checked changes.
#[derive(Debug)]
pub(super) struct Query {
    remove: Vec<String>,
    set: Vec<(String, Template)>,
}

impl Query {
    /// The new query, `None` inside if there is none; `None` outside if it is the same.
    pub(super) fn apply(&self, query: Option<&str>, values: &Values<'_>) -> Option<Option<String>> {
        if self.remove.is_empty() && self.set.is_empty() {
            return None;
        }
        let before = query.unwrap_or_default();
        let goes = |pair: &str| {
            let name = target::decode_component(pair.split_once('=').map_or(pair, |(name, _)| name));
            let is_name = |known: &String| *known.as_bytes() == *name;
            self.remove.iter().any(is_name) || self.set.iter().any(|(known, _)| is_name(known))
        };
        // Only pairs that are named are removed: an empty pair stays.
        let kept = before.split('&').filter(|pair| !goes(pair)).collect::<Vec<_>>().join("&");
        let mut after = kept;
        for (name, value) in &self.set {
            if !after.is_empty() {
                after.push('&');
            }
            after.push_str(&target::encode_component(name.as_bytes()));
            after.push('=');
            after.push_str(&target::encode_component(&value.render(values)));
        }
        if query.is_some_and(|query| query == after) || query.is_none() && after.is_empty() {
            return None;
        }
        Some((!after.is_empty()).then_some(after))
    }

    /// A few words for `explain`.
    pub(super) fn words(&self) -> Option<String> {
        let set = self.set.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let removed = self.remove.join(", ");
        let parts = [("query sets", set), ("query removes", removed)];
        let parts = parts.iter().filter(|(_, names)| !names.is_empty()).map(|(verb, names)| format!("{verb} {names}"));
        Some(parts.collect::<Vec<_>>().join(", ")).filter(|words| !words.is_empty())
    }
}
