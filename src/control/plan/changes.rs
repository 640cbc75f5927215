//! What is different between two configurations, in the words of the file.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::changed_keys::changed_keys;
use crate::config::{Checked, Config, RouteSpec, listener, routes, server};

/// The largest number of names in a list.
const NAMES_MAX: usize = 10;

/// What changes from one configuration to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changes {
    /// Pools by name.
    pub pools: Difference,
    /// Routes by name.
    pub routes: Difference,
    /// Other blocks of the file, by key.
    pub settings: Vec<String>,
    /// Blocks that only a new process can take up, by key: they differ from what this one started with.
    pub needs_upgrade: Vec<String>,
}

/// Differences among named things.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Only in the new configuration.
    pub added: Vec<String>,
    /// Only in the old configuration.
    pub removed: Vec<String>,
    /// In both, but different.
    pub changed: Vec<String>,
}

/// The listeners without what a reload replaces: their filters and their rules about peers.
fn fixed_parts(config: &Config) -> Vec<listener::Config> {
    let fixed = |one: &listener::Config| listener::Config { filters: Vec::new(), access: None, ..one.clone() };
    config.listeners.iter().map(fixed).collect()
}

/// The keys of listeners that differ and that a reload replaces, if the listeners are otherwise the same.
fn reloaded_parts(was: &Config, is: &Config) -> impl Iterator<Item = &'static str> {
    let same_sockets = fixed_parts(was) == fixed_parts(is);
    let pairs = || was.listeners.iter().zip(&is.listeners);
    let parts = [
        ("listeners.access", pairs().any(|(was, is)| was.access != is.access)),
        ("listeners.filters", pairs().any(|(was, is)| was.filters != is.filters)),
    ];
    parts.into_iter().filter(move |(_, differs)| same_sockets && *differs).map(|(key, _)| key)
}

impl Changes {
    /// The changes from `old` to `new` in a process that was started with `started`.
    #[must_use]
    pub fn between(old: &Checked, new: &Checked, started: &Config) -> Self {
        let pools = Difference::between(&old.pools, &new.pools, |a, b| a.is_same(b));
        let routes = Difference::between(&routes(old), &routes(new), |(_, a), (_, b)| a == b);
        let (was, is) = (&old.written, &new.written);
        let settings = changed_keys!(
            Config, was, is,
            compare: [
                admin, metrics, trusted_proxies, send_forwarded, proxy_status, rate_limit, request_limits,
                client_timeouts,
                connection_limits, access_log, drain_delay, reload, recent_requests, cache, filters, chains,
            ],
            elsewhere: [server, listeners, pools, routes, tests]
        );
        // A pool takes up the zone with a reload.
        let server = |config: &Config| server::Config { zone: None, ..config.server.clone() };
        let same_admin = match (&started.admin, &is.admin) {
            (Some(started), Some(is)) => started.has_same_sockets(is),
            (started, is) => started.is_none() && is.is_none(),
        };
        let needs_upgrade = [
            ("server", server(started) != server(is)),
            ("listeners", fixed_parts(started) != fixed_parts(is)),
            ("admin", !same_admin),
            ("metrics", started.metrics != is.metrics),
        ];
        let needs_upgrade = needs_upgrade.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned());
        let zone = (was.server.zone != is.server.zone).then_some("server.zone");
        let of_listeners = reloaded_parts(was, is);
        let settings = settings.into_iter().chain(zone).chain(of_listeners).map(str::to_owned).collect();
        Self { pools, routes, settings, needs_upgrade: needs_upgrade.collect() }
    }

    /// One sentence per kind of change; empty without changes.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let named = [
            ("pools added", &self.pools.added),
            ("pools removed", &self.pools.removed),
            ("pools changed", &self.pools.changed),
            ("routes added", &self.routes.added),
            ("routes removed", &self.routes.removed),
            ("routes changed", &self.routes.changed),
            ("settings changed", &self.settings),
            ("needs an upgrade", &self.needs_upgrade),
        ];
        let sentence = |(what, names): (&str, &Vec<String>)| {
            let more = names.len().saturating_sub(NAMES_MAX);
            let shown = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            if more == 0 { format!("{what}: {shown}") } else { format!("{what}: {shown} and {more} more") }
        };
        named.into_iter().filter(|(_, names)| !names.is_empty()).map(sentence).collect()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentences = self.sentences();
        f.write_str(&if sentences.is_empty() { "nothing changed".to_owned() } else { sentences.join("; ") })
    }
}

impl Difference {
    fn between<K: Ord + ToString, V>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>, same: fn(&V, &V) -> bool) -> Self {
        let only_in = |one: &BTreeMap<K, V>, other: &BTreeMap<K, V>| {
            one.keys().filter(|name| !other.contains_key(name)).map(ToString::to_string).collect()
        };
        let differs =
            |(name, value): (&K, &V)| new.get(name).is_some_and(|now| !same(value, now)).then(|| name.to_string());
        Self { added: only_in(new, old), removed: only_in(old, new), changed: old.iter().filter_map(differs).collect() }
    }
}

/// The routes, checked and as configured, by name and, for equal names, by order.
pub(super) fn routes(checked: &Checked) -> BTreeMap<String, (&RouteSpec, &routes::Config)> {
    let mut routes = BTreeMap::new();
    for (spec, written) in checked.routes.iter().zip(&checked.written.routes) {
        let mut name = spec.name.to_string();
        while routes.contains_key(&name) {
            name.push('\'');
        }
        routes.insert(name, (spec, written));
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn checked(text: &str) -> Checked {
        load::parse(text, "f", &|_| None).unwrap_or_else(|e| panic!("{e:?}"))
    }

    const OLD: &str = "listeners: [{ address: 0.0.0.0:8080 }]\n\
        pools: { a: { backends: [{ address: 127.0.0.1:1 }] }, b: { backends: [{ address: 127.0.0.1:2 }] } }\n\
        routes: [{ path: /a, pool: a }, { path: /b, pool: b, name: second }]\n";

    #[test]
    fn changes_are_listed_by_name() {
        let new = OLD
            .replace("127.0.0.1:1", "127.0.0.1:3")
            .replace("b: { backends", "c: { backends")
            .replace("pool: b", "pool: c")
            .replace("/a, pool", "/other, pool")
            .replace("8080", "8081")
            + "rate_limit: { type: fixed_window, limit: 1, window: 1s }\n";
        let (old, new) = (checked(OLD), checked(&new));
        let changes = Changes::between(&old, &new, &old.written);
        assert_eq!(
            changes.sentences(),
            [
                "pools added: c",
                "pools removed: b",
                "pools changed: a",
                "routes added: */other",
                "routes removed: */a",
                "routes changed: second",
                "settings changed: rate_limit",
                "needs an upgrade: listeners",
            ]
        );
        let nothing = Changes::between(&old, &checked(&format!("# a comment\n{OLD}")), &old.written);
        assert_eq!((nothing.sentences().len(), nothing.to_string().as_str()), (0, "nothing changed"));
    }

    #[test]
    fn needed_upgrade_is_compared_with_the_start_of_the_process() {
        let (old, new) = (checked(OLD), checked(&OLD.replace("8080", "8081")));
        assert_eq!(
            Changes::between(&new, &new, &old.written).needs_upgrade,
            ["listeners"],
            "the upgrade is still pending"
        );
        assert!(Changes::between(&new, &old, &old.written).needs_upgrade.is_empty(), "the change was reverted");
    }

    #[test]
    fn changed_local_zone_is_a_setting_that_needs_no_upgrade() {
        let (old, new) = (checked(OLD), checked(&format!("server: {{ zone: a }}\n{OLD}")));
        assert_eq!(
            Changes::between(&old, &new, &old.written).sentences(),
            ["pools changed: a, b", "settings changed: server.zone"],
            "every pool is replaced"
        );
        let threads = checked(&format!("server: {{ threads: 3 }}\n{OLD}"));
        assert_eq!(Changes::between(&old, &threads, &old.written).sentences(), ["needs an upgrade: server"]);
    }

    #[test]
    fn long_lists_are_truncated() {
        let changes = Changes { settings: (0..25).map(|n| n.to_string()).collect(), ..Changes::default() };
        assert_eq!(changes.to_string(), "settings changed: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 15 more");
    }
}
