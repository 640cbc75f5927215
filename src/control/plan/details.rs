//! The differences between two configurations as sentences.

use std::cmp::Ordering;

use super::changed_keys::changed_keys;
use super::changes::{Changes, routes};
use crate::base::units::Zone;
use crate::config::routes::{Config as RouteConfig, TargetSpec};
use crate::config::{Checked, RouteSpec};
use crate::limit;
use crate::pool::{self, BackendConfig};

/// The largest number of sentences.
const DETAILS_MAX: usize = 200;

/// All changes from `old` to `new`. `changes` lists the same by name.
#[must_use]
pub fn details(old: &Checked, new: &Checked, changes: &Changes) -> Vec<String> {
    let mut sentences = Vec::new();
    sentences.extend(limit("the global rate limit", old.rate_limit, new.rate_limit));
    pools(old, new, changes, &mut sentences);
    routes_of(old, new, changes, &mut sentences);
    let settings = changes.settings.iter().filter(|key| *key != "rate_limit");
    sentences.extend(settings.map(|key| format!("`{key}` changed")));
    sentences.extend(
        changes.needs_upgrade.iter().map(|key| format!("`{key}` needs an upgrade (`l7lb reload --upgrade-if-needed`)")),
    );
    let more = sentences.len().saturating_sub(DETAILS_MAX);
    if more > 0 {
        sentences.truncate(DETAILS_MAX);
        sentences.push(format!("and {more} more"));
    }
    sentences
}

fn pools(old: &Checked, new: &Checked, changes: &Changes, sentences: &mut Vec<String>) {
    for (name, pool) in &new.written.pools {
        let Some(before) = old.written.pools.get(name) else {
            let backends: Vec<&str> = pool.backends.iter().map(|backend| backend.address.as_str()).collect();
            sentences.push(format!("pool `{name}` added: {}", backends.join(", ")));
            continue;
        };
        if before != pool {
            let name = format!("pool `{name}`");
            backends(&name, &before.backends, &pool.backends, sentences);
            sentences.extend(keys(&name, pool_keys(before, pool)));
        } else if old.written.server.zone == new.written.server.zone
            && changes.pools.changed.iter().any(|changed| changed == name.as_str())
        {
            sentences.push(format!("pool `{name}`: the content of a file has changed"));
        }
    }
    let gone = old.written.pools.keys().filter(|name| !new.written.pools.contains_key(*name));
    sentences.extend(gone.map(|name| format!("pool `{name}` removed")));
}

/// The changed keys of a pool, without its backends.
fn pool_keys(a: &pool::Config, b: &pool::Config) -> Vec<&'static str> {
    changed_keys!(
        pool::Config, a, b,
        compare: [
            balance, slow_start, backup_threshold, protocol, tls, proxy_protocol, health_check, passive_health,
            circuit_breaker, max_in_flight, queue, adaptive_concurrency, timeouts, keepalive_timeout, removal_timeout,
            discover,
        ],
        elsewhere: [backends]
    )
}

fn backends(pool: &str, old: &[BackendConfig], new: &[BackendConfig], sentences: &mut Vec<String>) {
    let find = |among: &[BackendConfig], address: &str| among.iter().find(|one| one.address == address).cloned();
    for backend in new {
        let address = &backend.address;
        let Some(before) = find(old, address) else {
            sentences.push(format!("{pool}: backend {address} added"));
            continue;
        };
        if before.weight != backend.weight {
            sentences.push(format!("{pool}: weight of {address} {} → {}", before.weight, backend.weight));
        }
        for (key, was, is) in [("drain", before.drain, backend.drain), ("backup", before.backup, backend.backup)] {
            if was != is {
                sentences.push(format!("{pool}: `{key}` of {address} {was} → {is}"));
            }
        }
        if before.zone != backend.zone {
            let (was, is) = (zone_name(before.zone.as_ref()), zone_name(backend.zone.as_ref()));
            sentences.push(format!("{pool}: `zone` of {address} {was} → {is}"));
        }
    }
    let gone = old.iter().filter(|backend| find(new, &backend.address).is_none());
    sentences.extend(gone.map(|backend| format!("{pool}: backend {} removed", backend.address)));
}

fn zone_name(zone: Option<&Zone>) -> &str {
    zone.map_or("none", Zone::as_str)
}

fn routes_of(old: &Checked, new: &Checked, changes: &Changes, sentences: &mut Vec<String>) {
    let (before, after) = (routes(old), routes(new));
    for name in &changes.routes.added {
        if let Some((spec, _)) = after.get(name) {
            let pools: Vec<&str> = spec.targets.iter().map(|target| target.pool.as_str()).collect();
            let matched = matcher(spec, name);
            sentences.push(format!("route `{name}` added{matched}: to pool {}", pools.join(", ")));
        }
    }
    for name in &changes.routes.removed {
        let matched = before.get(name).map(|(spec, _)| matcher(spec, name)).unwrap_or_default();
        sentences.push(format!("route `{name}` removed{matched}"));
    }
    for name in &changes.routes.changed {
        if let (Some((was, written)), Some((is, now))) = (before.get(name), after.get(name)) {
            route(&format!("route `{name}`"), was, is, sentences);
            sentences.extend(keys(&format!("route `{name}`"), route_keys(written, now)));
        }
    }
}

/// The matcher of a route, if it differs from its name.
fn matcher(spec: &RouteSpec, name: &str) -> String {
    let text = spec.matcher.to_string();
    if text == name { String::new() } else { format!(" ({text})") }
}

fn route(name: &str, was: &RouteSpec, is: &RouteSpec, sentences: &mut Vec<String>) {
    if was.matcher != is.matcher {
        sentences.push(format!("{name}: matches {} → {}", was.matcher, is.matcher));
    }
    match (was.targets.as_slice(), is.targets.as_slice()) {
        ([one], [other]) if one.pool == other.pool => {}
        ([_], _) | (_, [_]) => {
            sentences.push(format!("{name}: pool {} → {}", pools_of(&was.targets), pools_of(&is.targets)));
        }
        (before, after) => {
            for target in after {
                match before.iter().find(|known| known.pool == target.pool) {
                    None => sentences.push(format!("{name}: pool {} added, weight {}", target.pool, target.weight)),
                    Some(known) if known.weight != target.weight => {
                        sentences.push(format!(
                            "{name}: weight of pool {} {} → {}",
                            target.pool, known.weight, target.weight
                        ));
                    }
                    Some(_) => {}
                }
            }
            let gone = before.iter().filter(|target| !after.iter().any(|known| known.pool == target.pool));
            sentences.extend(gone.map(|target| format!("{name}: pool {} removed", target.pool)));
        }
    }
    sentences.extend(limit(&format!("{name}: the limit"), was.rate_limit, is.rate_limit));
}

/// The pools of a route, with their shares if there are several.
fn pools_of(targets: &[TargetSpec]) -> String {
    match targets {
        [one] => one.pool.to_string(),
        several => {
            let shares: Vec<String> =
                several.iter().map(|target| format!("{} {}", target.pool, target.weight)).collect();
            shares.join(" : ")
        }
    }
}

/// The changed keys of a route that are reported by name only.
fn route_keys(a: &RouteConfig, b: &RouteConfig) -> Vec<&'static str> {
    changed_keys!(
        RouteConfig, a, b,
        compare: [sticky, retry, cache, timeouts, body_size, allow_encoded, filters],
        elsewhere: [
            name, path, exact, host, methods, headers, query, cookies, clients, except_clients, priority, pool, rate_limit,
        ]
    )
}

fn keys<'a>(subject: &'a str, changed: Vec<&'static str>) -> impl Iterator<Item = String> + 'a {
    changed.into_iter().map(move |key| format!("{subject}: `{key}` changed"))
}

/// Whether a limit is tighter or looser: tighter if it admits fewer requests at every time.
fn limit(what: &str, old: Option<limit::Spec>, new: Option<limit::Spec>) -> Option<String> {
    let (was, is) = match (old, new) {
        (None, None) => return None,
        (None, Some(new)) => return Some(format!("{what} added: {}", new.amount())),
        (Some(old), None) => return Some(format!("{what} removed: {}", old.amount())),
        (Some(old), Some(new)) if old == new => return None,
        (Some(old), Some(new)) => (old, new),
    };
    // Requests per second, each multiplied by both windows, to avoid rounding.
    let rate = |one: limit::Spec, other: limit::Spec| u128::from(one.limit.get()) * other.window.as_nanos();
    let steady = rate(is, was).cmp(&rate(was, is));
    let at_once = is.quota().cmp(&was.quota());
    let word = match (was.algorithm == is.algorithm, steady.max(at_once), steady.min(at_once)) {
        (true, Ordering::Equal, Ordering::Less) => "tightened",
        (true, Ordering::Less, _) => "tightened",
        (true, Ordering::Greater, Ordering::Equal | Ordering::Greater) => "loosened",
        _ => "changed",
    };
    let kind = |spec: limit::Spec| match was.algorithm == is.algorithm {
        true => spec.amount(),
        false => format!("{} of {}", spec.algorithm, spec.amount()),
    };
    Some(format!("{what} {word}: {} → {}", kind(was), kind(is)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    const OLD: &str = "listeners: [{ address: 0.0.0.0:8080 }]
rate_limit: { type: fixed_window, limit: 100, window: 1m }
pools:
  a: { backends: [{ address: 127.0.0.1:1 }, { address: 127.0.0.1:2, weight: 1 }] }
  b: { backends: [{ address: 127.0.0.1:3 }] }
  c: { backends: [{ address: 127.0.0.1:4 }] }
routes:
  - { path: /, pool: a, name: rest, rate_limit: { type: token_bucket, limit: 10, window: 1s } }
  - { path: /split, pool: { a: 95, b: 5 }, name: split }
  - { path: /c, pool: c }
  - { path: /once, pool: a, name: once }
";

    fn checked(text: &str) -> Checked {
        load::parse(text, "f", &|_| None).unwrap_or_else(|e| panic!("{e:?}"))
    }

    fn sentences(new: &str) -> Vec<String> {
        let (old, new) = (checked(OLD), checked(new));
        details(&old, &new, &Changes::between(&old, &new, &old.written))
    }

    #[test]
    fn every_change_is_described_by_a_sentence() {
        let new = "listeners: [{ address: 0.0.0.0:8081 }]
rate_limit: { type: fixed_window, limit: 50, window: 1m }
access_log: { format: json }
pools:
  a: { balance: random, backends: [{ address: 127.0.0.1:2, weight: 3, drain: true, zone: z2 }, { address: 127.0.0.1:5 }] }
  b: { backends: [{ address: 127.0.0.1:3 }] }
  d: { backends: [{ address: 127.0.0.1:6 }] }
routes:
  - { path: /, pool: b, name: rest, methods: [GET], retry: { attempts: 1 }, rate_limit: { type: token_bucket, limit: 20, window: 1s } }
  - { path: /split, pool: { a: 90, b: 10, d: 1 }, name: split }
  - { path: /d, pool: d, name: new }
  - { path: /once, pool: { a: 95, b: 5 }, name: once }
";
        assert_eq!(
            sentences(new),
            [
                "the global rate limit tightened: 100 requests in 1m → 50 requests in 1m",
                "pool `a`: weight of 127.0.0.1:2 1 → 3",
                "pool `a`: `drain` of 127.0.0.1:2 false → true",
                "pool `a`: `zone` of 127.0.0.1:2 none → z2",
                "pool `a`: backend 127.0.0.1:5 added",
                "pool `a`: backend 127.0.0.1:1 removed",
                "pool `a`: `balance` changed",
                "pool `d` added: 127.0.0.1:6",
                "pool `c` removed",
                "route `new` added (*/d): to pool d",
                "route `*/c` removed",
                "route `once`: pool a → a 95 : b 5",
                "route `rest`: matches */ → GET */",
                "route `rest`: pool a → b",
                "route `rest`: the limit loosened: 10 requests in 1s, bursts of 10 → 20 requests in 1s, bursts of 20",
                "route `rest`: `retry` changed",
                "route `split`: weight of pool a 95 → 90",
                "route `split`: weight of pool b 5 → 10",
                "route `split`: pool d added, weight 1",
                "`access_log` changed",
                "`listeners` needs an upgrade (`l7lb reload --upgrade-if-needed`)",
            ]
        );
        assert!(sentences(&format!("# a comment\n{OLD}")).is_empty());
    }

    #[test]
    fn limit_is_tighter_only_if_it_admits_less_at_every_time() {
        let word = |limit: &str| {
            let new = OLD.replace("{ type: fixed_window, limit: 100, window: 1m }", limit);
            sentences(&new).pop().unwrap_or_default().split([':', ';']).next().unwrap_or_default().to_owned()
        };
        let what = "the global rate limit";
        for (limit, expected) in [
            ("{ type: fixed_window, limit: 100, window: 2m }", "tightened"),
            ("{ type: fixed_window, limit: 1, window: 1s }", "tightened"),
            ("{ type: fixed_window, limit: 200, window: 1m }", "loosened"),
            ("{ type: fixed_window, limit: 10, window: 1s }", "changed"),
            ("{ type: sliding_window, limit: 100, window: 1m }", "changed"),
            ("{ type: none }", "removed"),
        ] {
            assert_eq!(word(limit), format!("{what} {expected}"), "{limit}");
        }
    }
}
