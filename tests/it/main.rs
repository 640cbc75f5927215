//! Integration tests: the real binary with real backends and signals.

#![allow(missing_docs, unreachable_pub, reason = "tests are read by their names")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::let_underscore_must_use,
    reason = "a test that cannot continue fails"
)]

mod lab;

mod admin;
mod affinity;
mod cache;
mod causes;
mod command;
mod conditions;
mod dashboards;
mod descriptors;
mod differential;
mod discovery;
mod dns;
mod docker;
mod control;
mod errors;
mod etcd;
mod explain;
mod filters;
mod front;
mod grpc;
mod headers;
mod health;
mod http2_backends;
mod kubernetes;
mod lifecycle;
mod limits;
mod metrics;
mod log;
mod passage;
mod plan;
mod proxy_protocol;
mod proxy_status;
mod recorder;
mod reload;
mod resilience;
mod retries;
mod shutdown;
mod strict;
mod syslog;
mod timeouts;
mod tls;
mod traffic;
mod unix_sockets;
mod zones;

use lab::{Backend, Lab};

/// A configuration with one pool without health checks, with backends at these ports and these keys in its route.
fn unchecked(port: u16, backends: &[u16], route: &str) -> Lab {
    let backends: Vec<String> = backends.iter().map(|port| format!("{{ address: '127.0.0.1:{port}' }}")).collect();
    Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ balance: round_robin, passive_health: off, health_check: {{ type: none }}, backends: [{}] }} }}\n\
         routes: [{{ path: /, pool: p{route} }}]\n",
        backends.join(", ")
    ))
}

/// A configuration with one pool of these backends at `/apiA` and short health check intervals.
fn one_pool(port: u16, backends: &[&Backend], more: &str) -> String {
    let backends: Vec<String> =
        backends.iter().map(|backend| format!("{{ address: '127.0.0.1:{}' }}", backend.port)).collect();
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ health_check: {{ type: http, path: /health, interval: 200ms, unhealthy_interval: 100ms, timeout: 500ms, rise: 1, fall: 2 }}, backends: [{}] }}\n\
         routes: [{{ path: /apiA, pool: a }}]\n{more}",
        backends.join(", ")
    )
}
