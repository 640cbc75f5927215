//! Discovery with the real binary: registrations, files, and what happens when a source fails.

mod changes;
mod files;
mod registrations;
mod service;

use http::Method;
use serde_json::Value;

use crate::control::call;
use crate::lab::{Backend, Lab, PATIENCE, eventually};

/// A pool at `/` with these sources and quick health checks, and the folder of the process as `{folder}`.
fn yaml(port: u16, discover: &str) -> String {
    format!(
        "server: {{ threads: 2, upgrade_sock: '{{folder}}/upgrade.sock', pid_file: '{{folder}}/l7lb.pid' }}\n\
         reload: {{ watch: false }}\n\
         listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ p: {{ slow_start: 0s, health_check: {{ type: http, path: /health, interval: 100ms, \
         unhealthy_interval: 100ms, timeout: 5s, rise: 1, fall: 3 }}, discover: {discover} }} }}\n\
         routes: [{{ path: /, pool: p }}]\n"
    )
}

fn address(backend: &Backend) -> String {
    format!("127.0.0.1:{}", backend.port)
}

fn backends(lab: &Lab) -> Vec<Value> {
    let (_, listed) = call(lab, Method::GET, "/backends?pool=p", "");
    listed["backends"].as_array().unwrap().clone()
}

/// Waits until exactly these backends are in the pool, and all of them are available.
fn wait_until_available(lab: &Lab, expected: &[&Backend]) {
    let mut expected: Vec<String> = expected.iter().map(|backend| address(backend)).collect();
    expected.sort();
    eventually("the backends are available", PATIENCE, || {
        let listed = backends(lab);
        let mut found: Vec<&str> = listed.iter().map(|backend| backend["address"].as_str().unwrap()).collect();
        found.sort_unstable();
        found == expected && listed.iter().all(|backend| backend["available"] == true)
    });
}

/// The state of the only source.
fn source(lab: &Lab) -> Value {
    let (_, pools) = call(lab, Method::GET, "/pools", "");
    pools["pools"][0]["sources"][0].clone()
}
