//! A fault somewhere in the file hides no unknown reference elsewhere, and causes no false one.

use crate::config::load;

/// The places of the faults.
fn places(pools: &str, routes: &str, rest: &str) -> Vec<String> {
    let text = format!("listeners: 8080\npools: {{ {pools} }}\nroutes: [{routes}]\n{rest}\n");
    let Err(diagnostics) = load::parse(&text, "f", &|_| None) else { panic!("{text} is accepted") };
    diagnostics.into_iter().map(|diagnostic| diagnostic.place).collect()
}

const POOL: &str = "p: { backends: 8081 }";

#[test]
fn unknown_pool_is_reported_whatever_else_is_wrong_in_the_file() {
    for (pools, routes, rest, expected) in [
        (POOL, "{ path: /, pool: q }", "bogus: 1", &["routes[0].pool", "bogus"][..]),
        (POOL, "{ path: /, pool: q }", "drain_delay: 5", &["routes[0].pool", "drain_delay"]),
        ("p: { backends: 8081, bogus: 1 }", "{ path: /, pool: q }", "", &["pools.p.bogus", "routes[0].pool"]),
        ("p: { backends: 8081, protocol: x }", "{ path: /, pool: q }", "", &["pools.p.protocol", "routes[0].pool"]),
        ("p: { protocol: h2c }", "{ path: /, pool: q }", "", &["pools.p.backends", "routes[0].pool"]),
        (POOL, "{ path: /, pool: q, bogus: 1 }", "", &["routes[0].pool", "routes[0].bogus"]),
        (POOL, "{ pool: q }", "", &["routes[0]", "routes[0].pool"]),
        (POOL, "{ path: 5, pool: { q: 1, p: 1 } }", "", &["routes[0].path", "routes[0].pool.q"]),
        (POOL, "{ path: /, pool: { q: x, p: 1 } }", "", &["routes[0].pool.q"]),
        (
            POOL,
            "{ path: /, pool: p, body_size: x }",
            "tests: { request: http://x/, expect: { pool: q } }",
            &["routes[0].body_size", "tests.expect.pool"],
        ),
        (
            POOL,
            "{ path: /, pool: p, name: a }, { path: /a, pool: p, body_size: x }",
            "tests: { request: http://x/, expect: { route: b } }",
            &["routes[1].body_size", "tests.expect.route"],
        ),
    ] {
        let mut said = places(pools, routes, rest);
        said.dedup();
        assert_eq!(said, expected, "{pools} {routes} {rest}");
    }
}

#[test]
fn reference_to_a_block_that_could_not_be_read_is_not_reported() {
    for (pools, routes, rest, expected) in [
        ("p: { protocol: h2c }", "{ path: /, pool: p }", "", &["pools.p.backends"][..]),
        ("p: 5", "{ path: /, pool: { p: 1 } }", "", &["pools.p"]),
        (
            POOL,
            "{ path: 5, pool: p, name: a }",
            "tests: { request: http://x/, expect: { route: a, pool: p } }",
            &["routes[0].path"],
        ),
        (
            POOL,
            "{ path: /, pool: p }, { path: 5, pool: p }",
            "tests: { request: http://x/, expect: { route: '*/a' } }",
            &["routes[1].path"],
        ),
        (POOL, "{ path: /, pool: p }, { path: /, pool: p, host: 5 }", "", &["routes[1].host"]),
        (POOL, "{ path: /, pool: p, hst: a.test }, { path: /, pool: p }", "", &["routes[0].hst"]),
    ] {
        assert_eq!(places(pools, routes, rest), expected, "{pools} {routes} {rest}");
    }
}

#[test]
fn duplicate_route_is_reported_beside_an_unknown_key() {
    let routes = "{ path: /, pool: p }, { path: /, pool: p, bogus: 1 }";
    assert_eq!(places(POOL, routes, ""), ["routes[1].path", "routes[1].bogus"]);
    let many: Vec<String> = (0..11).map(|index| format!("{{ path: /{index}, pool: p }}")).collect();
    let routes = format!(
        "{{ path: /, pool: p }}, {{ path: /, pool: p }}, {}, {{ path: /x, pool: p, bogus: 1 }}",
        many.join(", ")
    );
    assert_eq!(places(POOL, &routes, ""), ["routes[1].path", "routes[13].bogus"]);
}
