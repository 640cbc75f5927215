//! Configuration tests, explanations and the routing table agree.

use std::time::Instant;

use super::example::ExampleRequest;
use super::expectations::failures;
use super::explanation::{Explanation, Verdict};
use crate::config::{Checked, load};
use crate::decision::snapshot::Snapshot;

const TEXT: &str = "listeners: [{ address: 0.0.0.0:8080 }, { address: 0.0.0.0:80, redirect_to_https: 443 }]
trusted_proxies: [10.0.0.0/8]
rate_limit: { type: fixed_window, limit: 1, window: 1m }
pools:
  a: { backends: [{ address: 127.0.0.1:1, weight: 3 }] }
  b: { backends: [{ address: 127.0.0.1:2 }] }
routes:
  - { path: /, pool: a, name: rest, host: example.com }
  - { path: /apiA, pool: b, name: api-a, body_size: 10 }
  - { path: /apiA/x, pool: b, name: post, methods: [POST] }
";

fn live(tests: &str) -> (Checked, Snapshot) {
    let text = format!("{TEXT}{tests}");
    let checked = load::parse(&text, "f", &|_| None).unwrap_or_else(|e| panic!("{e:?}"));
    let snapshot = Snapshot::build(&checked, None, Instant::now()).unwrap();
    (checked, snapshot)
}

fn failing(test: &str) -> Vec<String> {
    let (checked, snapshot) = live(&format!("tests: [{test}]\n"));
    failures(&checked, &snapshot).iter().map(|fault| format!("{}: {}", fault.place, fault.problem)).collect()
}

#[test]
fn met_expectations_report_no_fault() {
    for test in [
        "{ request: 'GET http://example.com:8080/x', expect: { route: rest, pool: a } }",
        "{ request: 'http://other.com:8080/apiA/../apiA/%78', expect: { route: api-a } }",
        "{ request: 'POST http://example.com:8080/apiA/x', expect: { route: rest } }",
        "{ request: 'GET http://other.com:8080/apiAB', expect: { status: 404, cause: no_route } }",
        "{ request: 'GET http://example.com/x', expect: { status: 308 } }",
        "{ request: 'POST http://o.com:8080/apiA', headers: { content-length: '11' }, expect: { status: 413 } }",
        "{ request: 'GET http://o.com:8080/apiA', headers: { content-length: 'x' }, expect: { status: 400 } }",
        "{ request: 'GET http://example.com:8080/..', expect: { cause: bad_request } }",
        "{ request: 'GET http://example.com:8080/', headers: { Host: other.com }, expect: { status: 404 } }",
        "{ request: 'TRACE http://example.com:8080/', expect: { status: 405 } }",
    ] {
        assert_eq!(failing(test), [""; 0], "{test}");
    }
}

#[test]
fn failed_expectation_is_reported_with_its_place_and_the_actual_outcome() {
    assert_eq!(
        failing("{ request: 'GET http://o.com:8080/apiA', expect: { pool: a } }"),
        ["tests[0].expect.pool: expected the pool `a`, but route `api-a` sends it to pool `b`"]
    );
    assert_eq!(
        failing("{ request: 'GET http://o.com:8080/', expect: { pool: a } }"),
        ["tests[0].expect.pool: expected the pool `a`, but it is rejected with 404 no_route"]
    );
    assert_eq!(
        failing("{ request: 'GET http://o.com:8080/apiA', expect: { status: 404 } }"),
        ["tests[0].expect.status: expected the status `404`, but route `api-a` sends it to pool `b`"]
    );
    assert_eq!(
        failing("{ request: 'GET o.com/', expect: { status: 404 } }"),
        ["tests[0].request: `o.com/` starts with neither https:// nor http://"]
    );
}

#[test]
fn every_route_is_listed_with_the_reason_it_did_not_match() {
    let (checked, snapshot) = live("");
    let verdicts = |request: &str| {
        let outcome = ExampleRequest::parse(request).unwrap().outcome(&snapshot, &checked.listeners);
        let explanation = Explanation::new(outcome, &snapshot);
        explanation.routes.iter().map(|considered| considered.verdict).collect::<Vec<_>>()
    };
    use Verdict::{Host, HostLessSpecific, Matches, Method, NotEvaluated, Path, PathLessSpecific};
    assert_eq!(verdicts("GET http://example.com:8080/"), [Matches, Path, Path]);
    assert_eq!(verdicts("GET http://example.com:8080/apiA/x"), [Matches, HostLessSpecific, Method]);
    assert_eq!(verdicts("POST http://o.com:8080/apiA/x"), [Host, PathLessSpecific, Matches]);
    assert_eq!(verdicts("GET http://o.com:8080/apiAB"), [Host, Path, Path]);
    assert_eq!(verdicts("GET http://example.com:8080/.."), [NotEvaluated, Path, Path]);
    assert_eq!(verdicts("GET http://example.com/"), [NotEvaluated, Path, Path]);
}

#[test]
fn client_is_determined_as_in_traffic_and_limits_are_not_counted() {
    let (checked, snapshot) = live("");
    for (peer, client) in [("10.0.0.1", "203.0.113.9"), ("192.0.2.7", "192.0.2.7")] {
        let example = ExampleRequest::parse("http://example.com:8080/").unwrap().from(peer.parse().unwrap());
        let example = example.with_header("X-Forwarded-For", "203.0.113.9").unwrap();
        for _ in 0..3 {
            let outcome = example.outcome(&snapshot, &checked.listeners);
            assert_eq!(outcome.client.to_string(), client);
            assert!(outcome.decision.rejection.is_none());
            let explanation = Explanation::new(outcome, &snapshot);
            assert_eq!(
                (explanation.limits[0].limit.as_str(), &explanation.limits[0].state),
                ("1 requests in 1m, for each client", &None)
            );
            assert_eq!((explanation.pools[0].backends[0].weight, explanation.picked), (3, None));
        }
    }
}
