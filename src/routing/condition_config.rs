//! The keys `headers`, `query`, `cookies`, `clients`, `except_clients` and `priority` of a route.

use std::collections::BTreeMap;

use http::HeaderName;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::conditions::{Condition, Conditions, Source, Test};
use crate::base::fault::{Faults, Place};
use crate::base::regular_expression;

/// What a value must be: one of `exact`, `prefix`, `regex` and `present`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// This value.
    pub exact: Option<String>,
    /// A value that starts with this text.
    pub prefix: Option<String>,
    /// A value in which this regular expression matches. It is not anchored.
    pub regex: Option<String>,
    /// Whether there must be a value.
    pub present: Option<bool>,
    /// Whether the condition must not be fulfilled.
    pub not: bool,
}

/// The conditions of a route as configured.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// On header fields.
    pub headers: &'a BTreeMap<String, Config>,
    /// On query parameters.
    pub query: &'a BTreeMap<String, Config>,
    /// On cookies.
    pub cookies: &'a BTreeMap<String, Config>,
    /// The networks of clients.
    pub clients: &'a [IpNet],
    /// The networks of clients that do not match.
    pub except_clients: &'a [IpNet],
    /// The order among routes with conditions.
    pub priority: Option<i32>,
}

impl Config {
    fn check(&self, source: Source, place: &Place, faults: &mut Faults) -> Option<Condition> {
        let given = [self.exact.is_some(), self.prefix.is_some(), self.regex.is_some(), self.present.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            let problem = "a condition is one of exact, prefix, regex and present";
            faults.add(place.clone(), problem, "write for example `exact: VALUE`, and `not: true` for its opposite");
            return None;
        }
        let (test, negated) = match (&self.exact, &self.prefix, &self.regex) {
            (Some(text), _, _) => (Test::Exact(text.clone()), self.not),
            (_, Some(text), _) if text.is_empty() => {
                faults.add(place.key("prefix"), "every value starts with an empty text", "write `present: true`");
                return None;
            }
            (_, Some(text), _) => (Test::Prefix(text.clone()), self.not),
            (_, _, Some(pattern)) => {
                let regex = regular_expression::compile_for_bytes(pattern, &place.key("regex"), faults)?;
                (Test::Regex(regex), self.not)
            }
            _ => (Test::Present, self.not == self.present.unwrap_or(true)),
        };
        Some(Condition { source, test, negated })
    }
}

impl Given<'_> {
    /// Checks the conditions of a route at `place`, and returns them with the priority.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> (Conditions, i32) {
        let mut named = Vec::new();
        for (key, configs) in [("headers", self.headers), ("query", self.query), ("cookies", self.cookies)] {
            for (name, config) in configs {
                let place = place.key(key).key(name);
                let source = match key {
                    "headers" => check_header(name, &place, faults),
                    "query" => Some(Source::Query(name.clone())),
                    _ => Some(Source::Cookie(name.clone())),
                };
                if name.is_empty() {
                    faults.add(place.clone(), "the name is empty", "write a name");
                }
                named.extend(source.and_then(|source| config.check(source, &place, faults)));
            }
        }
        let (clients, except_clients) = (self.clients.to_vec(), self.except_clients.to_vec());
        let conditions = Conditions { named, clients, except_clients };
        let has_any = [self.headers, self.query, self.cookies].iter().any(|configs| !configs.is_empty());
        if self.priority.is_some() && !has_any && conditions.is_empty() {
            let problem = "`priority` orders routes with conditions; this route has none";
            faults.add(place.key("priority"), problem, "remove it: routes with conditions come first anyway");
        }
        (conditions, self.priority.unwrap_or_default())
    }
}

/// The name of a field that a condition may read.
fn check_header(name: &str, place: &Place, faults: &mut Faults) -> Option<Source> {
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        faults.add(place.clone(), format!("`{name}` is not a header name"), "write for example X-Version");
        return None;
    };
    let lower = parsed.as_str();
    if lower == "host" {
        faults.add(place.clone(), "the host is not a condition", "write `host: NAME` in the route");
        return None;
    }
    if lower.starts_with("x-client-cert") || lower.starts_with("x-forwarded-") || lower == "forwarded" {
        let problem = format!("clients may forge `{name}`: l7lb sets or removes it after routing");
        faults.add(place.clone(), problem, "use `clients`, or a field of your own");
        return None;
    }
    Some(Source::Header(parsed))
}
