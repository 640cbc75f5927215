//! The HTTP cache: conformance to RFC 9111, collapsed requests, attacks, purges, commands, and random exchanges against a
//! model.

mod attacks;
mod collapsing;
mod commands;
mod conformance;
mod disk;
mod framing;
mod keys;
mod origin;
mod property;
mod purge;
mod wire;

use crate::lab::Lab;

/// The name of the cache in Cache-Status.
const HIT: &str = "l7lb; hit";

/// The keys of a route's `cache` with the store that `L7LB_CACHE_STORE` names, for runs with another than the default.
fn with_store(keys: &str) -> String {
    match std::env::var("L7LB_CACHE_STORE") {
        Ok(store) => format!("store: {store}, {keys}"),
        Err(_) => keys.to_owned(),
    }
}

/// A balancer in front of one origin, with these keys in `cache` of its route.
fn cached(port: u16, origin: u16, keys: &str) -> Lab {
    let keys = with_store(keys);
    Lab::start(&configuration(port, origin, &format!("  - {{ path: /, pool: a, cache: {{ {keys} }} }}\n")))
}

/// One pool without health checks, and these routes.
fn configuration(port: u16, origin: u16, routes: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         connection_limits: {{ per_client: 1000 }}\n\
         pools:\n  a: {{ health_check: {{ type: none }}, passive_health: off, backends: [{{ address: '127.0.0.1:{origin}' }}] }}\n\
         routes:\n{routes}{}",
        if routes.contains("store: disk") { "cache: { disk: { path: '{folder}/cache' } }\n" } else { "" }
    )
}
