//! Rate limits as clients see them. Accuracy under floods is tested in `src/limit`.

use std::collections::BTreeMap;

use crate::lab::client::{get, get_with};
use crate::lab::load::burst;
use crate::lab::{Backend, Lab, free_port};
use crate::one_pool;

fn lab(port: u16, backend: &Backend, more: &str) -> Lab {
    Lab::start(&one_pool(port, &[backend], more))
}

#[test]
fn each_limiter_type_admits_its_limit_and_rejects_the_rest() {
    let backend = Backend::start("one");
    // An hour, so that a slow test machine never reaches the next window or a refill.
    for kind in ["fixed_window", "sliding_window", "token_bucket"] {
        let port = free_port();
        let _lab = lab(port, &backend, &format!("rate_limit: {{ type: {kind}, limit: 100, window: 1h }}"));
        assert_eq!(burst(port, "/apiA", 110), BTreeMap::from([(200, 100), (429, 10)]), "{kind}");
    }
    let port = free_port();
    let _lab = lab(port, &backend, "rate_limit: { type: token_bucket, limit: 100, window: 1h, burst: 20 }");
    assert_eq!(burst(port, "/apiA", 110), BTreeMap::from([(200, 20), (429, 90)]));
    let port = free_port();
    let _lab = lab(port, &backend, "rate_limit: { type: none }");
    assert_eq!(burst(port, "/apiA", 110), BTreeMap::from([(200, 110)]));
}

#[test]
fn rate_limit_rejection_has_retry_after() {
    let backend = Backend::start("one");
    let port = free_port();
    let _lab = lab(port, &backend, "rate_limit: { type: fixed_window, limit: 2, window: 1h }");
    let first = get(port, "/apiA");
    assert_eq!(first.header("ratelimit-policy"), "\"client\";q=2;w=3600");
    assert!(first.header("ratelimit").starts_with("\"client\";r=1;t="), "{first:?}");
    get(port, "/apiA");
    let rejected = get(port, "/apiA");
    assert_eq!(rejected.status, 429);
    assert!(rejected.header("ratelimit").starts_with("\"client\";r=0;t="));
    let wait: u64 = rejected.header("retry-after").parse().unwrap();
    assert!((1..=3600).contains(&wait));
    assert!(rejected.body.contains("rate_limited"));
}

#[test]
fn global_limit_counts_unrouted_requests_and_routes_have_own_limits() {
    let backend = Backend::start("one");
    let port = free_port();
    let _unrouted = lab(port, &backend, "rate_limit: { type: fixed_window, limit: 5, window: 1h }");
    assert_eq!(burst(port, "/nowhere", 8), BTreeMap::from([(404, 5), (429, 3)]));

    let port = free_port();
    let yaml = one_pool(port, &[&backend], "").replace(
        "routes: [",
        "routes: [{ path: /tight, pool: a, rate_limit: { type: token_bucket, limit: 3, window: 1h } }, ",
    );
    let _own = Lab::start(&yaml);
    assert_eq!(burst(port, "/tight", 5), BTreeMap::from([(200, 3), (429, 2)]));
    assert_eq!(burst(port, "/apiA", 5), BTreeMap::from([(200, 5)]));
}

#[test]
fn clients_behind_a_trusted_proxy_are_counted_separately() {
    let backend = Backend::start("one");
    let limit = "rate_limit: { type: fixed_window, limit: 2, window: 1h }\n";
    let ask = |port, client: &str| get_with(port, "/apiA", &format!("X-Forwarded-For: {client}\r\n")).status;
    let port = free_port();
    let _trusting = lab(port, &backend, &format!("{limit}trusted_proxies: [127.0.0.0/8]"));
    assert_eq!([ask(port, "203.0.113.1"), ask(port, "203.0.113.1"), ask(port, "203.0.113.1")], [200, 200, 429]);
    assert_eq!(ask(port, "203.0.113.2"), 200);
    assert_eq!(ask(port, "198.51.100.1, 203.0.113.1"), 429, "addresses left of an untrusted hop are ignored");
    assert_eq!(
        [ask(port, "2001:db8::1"), ask(port, "2001:db8::2"), ask(port, "2001:db8::3")],
        [200, 200, 429],
        "one /64"
    );

    let port = free_port();
    let _without_trusted_proxies = lab(port, &backend, limit);
    assert_eq!([ask(port, "203.0.113.1"), ask(port, "203.0.113.2"), ask(port, "203.0.113.3")], [200, 200, 429]);
}
