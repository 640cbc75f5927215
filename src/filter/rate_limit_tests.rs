//! Tests of the filter `rate_limit`.

use std::collections::HashSet;
use std::net::IpAddr;

use super::*;
use crate::filter::variables::tests::{facts, request};
use crate::filter::{Changes, Facts};

fn config(text: &str) -> Config {
    serde_json::from_str(text).unwrap()
}

/// A filter with its own limits, and those that filters of the same name share with it.
fn filter(text: &str, shared: &mut SharedState) -> Arc<dyn Filter> {
    let mut faults = Faults::default();
    let filter = config(text).check(&Place::root(), &Surroundings::default(), &mut faults).unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    filter.share_state(shared);
    filter
}

#[expect(clippy::disallowed_methods, reason = "the start of windows")]
fn shared() -> SharedState {
    SharedState::new(Instant::now(), HashSet::new())
}

/// A request, and whether it is an example.
#[derive(Clone, Copy)]
struct Sent<'a> {
    method: &'a str,
    target: &'a str,
    fields: &'a [(&'static str, &'a str)],
    client: &'a str,
    is_example: bool,
}

const PLAIN: Sent<'_> = Sent { method: "GET", target: "/", fields: &[], client: "192.0.2.1", is_example: false };

/// Whether a request passes, and the quotas that its response names.
fn send(filter: &dyn Filter, sent: Sent<'_>) -> (bool, Vec<(String, u32)>) {
    let mut header = request(sent.target, sent.fields);
    header.set_method(Method::from_bytes(sent.method.as_bytes()).unwrap());
    let client: IpAddr = sent.client.parse().unwrap();
    let facts = Facts { client, is_example: sent.is_example, ..facts("a.test", "https") };
    let mut changes = Changes::default();
    let step = filter.request(&mut Request { header: &header, facts: &facts, changes: &mut changes });
    let passes = match step {
        Step::Continue => true,
        Step::Reject(DetailedRejection { rejection: Rejection::RateLimited { .. }, .. }) => false,
        _ => panic!("neither a pass nor a rejection"),
    };
    (passes, changes.quotas.into_iter().map(|quota| (quota.name, quota.remaining)).collect())
}

const ONE: &str = r#""limits":[{"type":"fixed_window","limit":1,"window":"1h"}]"#;

#[test]
fn requests_with_equal_parts_share_a_limit_and_others_do_not() {
    let key = |fields: &'static [(&'static str, &'static str)], target: &'static str, client: &'static str| Sent {
        fields,
        target,
        client,
        ..PLAIN
    };
    for (by, first, same, other) in [
        (r#"["client"]"#, key(&[], "/", "192.0.2.1"), key(&[], "/x", "192.0.2.1"), key(&[], "/", "192.0.2.2")),
        (
            r#"["header:X-Key"]"#,
            key(&[("x-key", "a")], "/", "192.0.2.1"),
            key(&[("x-key", "a")], "/", "192.0.2.2"),
            key(&[("x-key", "b")], "/", "192.0.2.1"),
        ),
        // Without a value, the client counts.
        (r#"["header:X-Key"]"#, key(&[], "/", "192.0.2.1"), key(&[], "/x", "192.0.2.1"), key(&[], "/", "192.0.2.2")),
        (
            r#"["cookie:id","segment:2"]"#,
            key(&[("cookie", "id=1")], "/t/a", "192.0.2.1"),
            key(&[("cookie", "x=2; id=1")], "/u/a/b?c", "192.0.2.2"),
            key(&[("cookie", "id=1")], "/t/b", "192.0.2.1"),
        ),
        (
            r#"["query:k"]"#,
            key(&[], "/?k=1", "192.0.2.1"),
            key(&[], "/?a=b&k=1", "192.0.2.1"),
            key(&[], "/?k=2", "192.0.2.1"),
        ),
        // `ab` and `c` are not `a` and `bc`.
        (
            r#"["header:X-A","header:X-B"]"#,
            key(&[("x-a", "ab"), ("x-b", "c")], "/", "192.0.2.1"),
            key(&[("x-a", "ab"), ("x-b", "c")], "/", "192.0.2.1"),
            key(&[("x-a", "a"), ("x-b", "bc")], "/", "192.0.2.1"),
        ),
    ] {
        let filter = filter(&format!(r#"{{"by":{by},{ONE}}}"#), &mut shared());
        let passed = [first, same, other].map(|sent| send(filter.as_ref(), sent).0);
        assert_eq!(passed, [true, false, true], "{by}");
    }
}

#[test]
fn rejected_request_counts_in_no_window() {
    let limits = r#"{"name":"api","limits":[{"type":"fixed_window","limit":2,"window":"1h"},
        {"type":"fixed_window","limit":5,"window":"2h"}]}"#;
    let filter = filter(limits, &mut shared());
    let left = |first, second| vec![("api".to_owned(), first), ("api-2".to_owned(), second)];
    assert_eq!(send(filter.as_ref(), PLAIN), (true, left(1, 4)));
    assert_eq!(send(filter.as_ref(), PLAIN), (true, left(0, 3)));
    for _ in 0..9 {
        assert_eq!(send(filter.as_ref(), PLAIN), (false, left(0, 3)));
    }
}

#[test]
fn method_counts_its_cost_or_nothing() {
    let text = r#"{"cost":{"POST":5,"OPTIONS":0},"limits":[{"type":"token_bucket","limit":8,"window":"1h"}]}"#;
    let filter = filter(text, &mut shared());
    let sent = |method| send(filter.as_ref(), Sent { method, ..PLAIN }).0;
    assert_eq!(["POST", "POST", "GET", "GET", "GET"].map(sent), [true, false, true, true, true]);
    assert_eq!(["GET", "OPTIONS", "OPTIONS"].map(sent), [false, true, true]);
}

#[test]
fn example_requests_are_not_counted() {
    let filter = filter(&format!("{{{ONE}}}"), &mut shared());
    let example = Sent { is_example: true, ..PLAIN };
    assert_eq!([example, example, PLAIN, example].map(|sent| send(filter.as_ref(), sent).0), [true, true, true, false]);
}

#[test]
fn observed_limit_rejects_nothing_and_shows_what_it_would() {
    let filter = filter(&format!(r#"{{"mode":"observe",{ONE}}}"#), &mut shared());
    for _ in 0..3 {
        assert_eq!(send(filter.as_ref(), PLAIN), (true, Vec::new()));
    }
    assert!(filter.describe().ends_with("observes: 2 requests were over it"), "{}", filter.describe());
}

#[test]
fn filters_with_the_same_name_count_together_also_after_a_reload() {
    let mut first = shared();
    let text = format!(r#"{{"name":"api",{ONE}}}"#);
    let filters = [filter(&text, &mut first), filter(&text, &mut first), filter(&format!("{{{ONE}}}"), &mut first)];
    assert_eq!(filters.each_ref().map(|filter| send(filter.as_ref(), PLAIN).0), [true, false, true]);
    let mut next = shared();
    filters.iter().for_each(|filter| filter.share_state(&mut next));
    assert!(!send(filter(&text, &mut next).as_ref(), PLAIN).0, "a new filter counts with those before");
    let larger = text.replace("\"limit\":1", "\"limit\":2");
    assert!(send(filter(&larger, &mut next).as_ref(), PLAIN).0, "another limit starts from zero");
}

#[test]
fn invalid_settings_are_faults() {
    for (text, wanted) in [
        ("{}", "limits: there is no limit"),
        (r#"{"limits":[{}]}"#, "limits[0]: the limit has no type"),
        (r#"{"limits":[{"type":"none"}]}"#, "limits[0]: the limit has no type"),
        (&format!(r#"{{"by":["clint"],{ONE}}}"#), "by[0]: `clint` is not a part of a request"),
        (&format!(r#"{{"by":["header"],{ONE}}}"#), "by[0]: `header` is not a part of a request"),
        (&format!(r#"{{"by":["segment:0"],{ONE}}}"#), "by[0]: `segment:0` is not a part of a request"),
        (&format!(r#"{{"cost":{{"POST":2}},{ONE}}}"#), "cost.POST: 2 is more than 1"),
        (&format!(r#"{{"cost":{{"post":1}},{ONE}}}"#), "cost.post: `post` is not a method"),
        (&format!(r#"{{"name":"a\"b",{ONE}}}"#), "name: `a\"b` cannot be in the field"),
    ] {
        let mut faults = Faults::default();
        config(text).check(&Place::root(), &Surroundings::default(), &mut faults);
        let faults = faults.into_vec();
        let said = faults.iter().map(|fault| format!("{}: {}", fault.place.as_str(), fault.problem));
        assert!(said.clone().any(|fault| fault.starts_with(wanted)), "{text}: {:?}", said.collect::<Vec<_>>());
    }
}
