//! Conditions of routes: what they accept, which exclude each other, and their order.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::condition_config::{Config, Given};
use super::rule_tests::matcher;
use super::{Conditions, Duplicate, Matcher, RequestFacts, Table};
use crate::base::fault::{Faults, Place};

/// Conditions from YAML with the keys of a route.
fn conditions(text: &str) -> (Conditions, u16) {
    #[derive(serde::Deserialize, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Keys {
        headers: std::collections::BTreeMap<String, Config>,
        query: std::collections::BTreeMap<String, Config>,
        cookies: std::collections::BTreeMap<String, Config>,
        clients: Vec<ipnet::IpNet>,
        except_clients: Vec<ipnet::IpNet>,
        priority: Option<u16>,
    }
    let keys: Keys = serde_json::from_str(text).unwrap();
    let given = Given {
        headers: &keys.headers,
        query: &keys.query,
        cookies: &keys.cookies,
        clients: &keys.clients,
        except_clients: &keys.except_clients,
        priority: keys.priority,
    };
    let mut faults = Faults::default();
    let checked = given.check(&Place::root(), &mut faults);
    assert!(faults.is_empty(), "{text}: {faults:?}");
    checked
}

fn with(text: &str, json: &str) -> Matcher {
    let (conditions, priority) = conditions(json);
    Matcher { conditions, priority, ..matcher(text) }
}

/// Whether a request with these fields, this target and this client fulfils the conditions.
fn accepts(json: &str, fields: &[(&str, &[u8])], target: &str, client: &str) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    let uri: Uri = target.parse().unwrap();
    let facts = RequestFacts { headers: &headers, uri: &uri, client: client.parse::<IpAddr>().unwrap() };
    conditions(json).0.mismatch(&facts).is_none()
}

#[test]
fn each_kind_of_condition_accepts_what_it_names() {
    let header = |test: &str, fields: &[(&str, &[u8])]| {
        accepts(&format!(r#"{{"headers":{{"X-A":{test}}}}}"#), fields, "/", "192.0.2.1")
    };
    let one: [(&str, &[u8]); 1] = [("x-a", b"one")];
    let none: [(&str, &[u8]); 0] = [];
    for (test, wanted_for_one, wanted_for_none) in [
        (r#"{"exact":"one"}"#, true, false),
        (r#"{"exact":"One"}"#, false, false),
        (r#"{"exact":"one","not":true}"#, false, true),
        (r#"{"prefix":"on"}"#, true, false),
        (r#"{"prefix":"on","not":true}"#, false, true),
        (r#"{"regex":"^o.e$"}"#, true, false),
        (r#"{"regex":"^x","not":true}"#, true, true),
        (r#"{"present":true}"#, true, false),
        (r#"{"present":false}"#, false, true),
        (r#"{"present":true,"not":true}"#, false, true),
        (r#"{"present":false,"not":true}"#, true, false),
    ] {
        assert_eq!((header(test, &one), header(test, &none)), (wanted_for_one, wanted_for_none), "{test}");
    }
    let two: [(&str, &[u8]); 2] = [("x-a", b"one"), ("x-a", b"\xff")];
    assert!(!header(r#"{"exact":"one"}"#, &two), "two lines are one value");
    assert!(header(r#"{"regex":"^one, (?-u:\\xff)$"}"#, &two));
    let query = |target: &str| accepts(r#"{"query":{"a b":{"exact":"x&y"}}}"#, &[], target, "192.0.2.1");
    assert!(query("/?c=d&a%20b=x%26y") && query("/?a+b=x%26y&a+b=z"));
    assert!(!query("/") && !query("/?a+b") && !query("/?a+b=z&a+b=x%26y"), "the first counts");
    let cookie = |value: &[u8]| accepts(r#"{"cookies":{"beta":{"exact":"1"}}}"#, &[("cookie", value)], "/", "::1");
    assert!(cookie(b"a=2; beta=1") && !cookie(b"beta=2") && !cookie(b"xbeta=1"));
    let client = |client: &str| {
        accepts(r#"{"clients":["10.0.0.0/8","2001:db8::/32"],"except_clients":["10.1.0.0/16"]}"#, &[], "/", client)
    };
    assert!(client("10.2.0.1") && client("2001:db8::1") && !client("10.1.0.1") && !client("192.0.2.1"));
}

#[test]
fn conditions_that_no_request_fulfils_together_are_known() {
    let excludes = |one: &str, two: &str| {
        let header = |test: &str| conditions(&format!(r#"{{"headers":{{"x-a":{test}}}}}"#)).0;
        let (one, two) = (header(one), header(two));
        assert_eq!(one.excludes(&two), two.excludes(&one), "{one} {two}");
        one.excludes(&two)
    };
    for (one, two, wanted) in [
        (r#"{"exact":"a"}"#, r#"{"exact":"b"}"#, true),
        (r#"{"exact":"a"}"#, r#"{"exact":"a","not":true}"#, true),
        (r#"{"exact":"a"}"#, r#"{"exact":"b","not":true}"#, false),
        (r#"{"exact":"ab"}"#, r#"{"prefix":"b"}"#, true),
        (r#"{"exact":"ab"}"#, r#"{"prefix":"a"}"#, false),
        (r#"{"exact":"ab"}"#, r#"{"regex":"^b"}"#, true),
        (r#"{"exact":"ab"}"#, r#"{"present":false}"#, true),
        (r#"{"prefix":"a"}"#, r#"{"prefix":"b"}"#, true),
        (r#"{"prefix":"a"}"#, r#"{"prefix":"ab"}"#, false),
        (r#"{"prefix":"ab"}"#, r#"{"prefix":"a","not":true}"#, true),
        (r#"{"prefix":"a"}"#, r#"{"prefix":"ab","not":true}"#, false),
        (r#"{"regex":"a"}"#, r#"{"regex":"b"}"#, false),
        (r#"{"regex":"a"}"#, r#"{"regex":"a","not":true}"#, true),
        (r#"{"regex":"a"}"#, r#"{"present":false}"#, true),
        (r#"{"present":true}"#, r#"{"present":false}"#, true),
        (r#"{"exact":"a","not":true}"#, r#"{"exact":"b","not":true}"#, false),
    ] {
        assert_eq!(excludes(one, two), wanted, "{one} {two}");
    }
    let clients = |json: &str| conditions(json).0;
    let inner = clients(r#"{"clients":["10.1.0.0/16"]}"#);
    assert!(inner.excludes(&clients(r#"{"clients":["10.2.0.0/16","192.0.2.0/24"]}"#)));
    assert!(inner.excludes(&clients(r#"{"except_clients":["10.0.0.0/8"]}"#)));
    assert!(!inner.excludes(&clients(r#"{"clients":["10.0.0.0/8"]}"#)));
    assert!(!inner.excludes(&clients(r#"{"headers":{"x":{"present":true}}}"#)), "different names");
}

fn find(table: &Table<usize>, path: &str, method: &Method, fields: &[(&str, &str)]) -> Option<usize> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let uri: Uri = path.parse().unwrap();
    let facts = RequestFacts { headers: &headers, uri: &uri, client: IpAddr::from([192, 0, 2, 1]) };
    table.find_for(Some("a"), uri.path(), method, &facts).copied()
}

#[test]
fn route_with_fulfilled_conditions_comes_first_and_the_others_are_its_fallback() {
    let x =
        |value: &str, priority: u16| format!(r#"{{"headers":{{"x":{{"exact":"{value}"}}}},"priority":{priority}}}"#);
    let routes = [
        matcher("* * /"),
        with("* * /p", &x("1", 0)),
        with("* * /p", &x("2", 0)),
        with("* * /p", r#"{"headers":{"y":{"present":true}},"priority":5}"#),
        with("GET * /p", r#"{"query":{"z":{"present":true}}}"#),
        matcher("GET * /p"),
        with("* a /p/q", r#"{"headers":{"never":{"present":true}}}"#),
    ];
    let table = Table::build(routes.into_iter().zip(0..)).unwrap();
    for (path, method, fields, wanted) in [
        ("/p", Method::GET, &[("x", "1")][..], Some(1)),
        ("/p/x", Method::POST, &[("x", "2")], Some(2)),
        ("/p", Method::GET, &[("x", "2"), ("y", "")], Some(3)),
        ("/p?z", Method::GET, &[("x", "2")], Some(4)),
        ("/p?z", Method::POST, &[("x", "3")], Some(0)),
        ("/p", Method::GET, &[("x", "3")], Some(5)),
        ("/p/q", Method::GET, &[("x", "1")], Some(1)),
        ("/p/q", Method::POST, &[], Some(0)),
    ] {
        assert_eq!(find(&table, path, &method, fields), wanted, "{path} {method} {fields:?}");
    }
    let headers = HeaderMap::new();
    let uri = Uri::from_static("/p");
    let facts = RequestFacts { headers: &headers, uri: &uri, client: IpAddr::from([192, 0, 2, 1]) };
    assert_eq!(table.find_for(Some("a"), "/p", &Method::GET, &facts), Some(&5));
}

#[test]
fn ambiguous_routes_are_a_fault_unless_priority_decides() {
    let x = r#"{"headers":{"x":{"exact":"1"}}}"#;
    let high = r#"{"headers":{"x":{"exact":"1"}},"priority":1}"#;
    let y = r#"{"headers":{"y":{"present":true}}}"#;
    let y_high = r#"{"headers":{"y":{"present":true}},"priority":1}"#;
    for (one, two, wanted) in [
        (("* a /p", x), ("* a /p", y), Some(true)),
        (("* a /p", x), ("* a /p", y_high), None),
        (("* a /p", x), ("* a /p", x), Some(false)),
        (("* a /p", x), ("* a /p", high), Some(false)),
        (("* a /p", x), ("* a /p", r#"{"headers":{"x":{"exact":"2"}}}"#), None),
        (("* a /p", x), ("* b /p", y), None),
        (("* a /p", x), ("* a =/p", y), None),
        (("GET a /p", x), ("POST a /p", y), None),
        (("GET,PUT a /p", x), ("GET,POST a /p", y), Some(true)),
        (("GET a /p", x), ("* a /p", y), None),
        (("* a /p", x), ("* a /p", "{}"), None),
    ] {
        let built = Table::build([(with(one.0, one.1), ()), (with(two.0, two.1), ())]);
        let found = built.err().map(|pairs| pairs.iter().map(|pair| pair.partial).collect::<Vec<_>>());
        assert_eq!(found, wanted.map(|partial| vec![partial]), "{one:?} {two:?}");
    }
    let built = Table::build([(with("* a /p", x), ()), (with("* a /p", y), ())]);
    let pair = Duplicate { first: 0, second: 1, matcher: "a/p (header y)".to_owned(), partial: true };
    assert!(pair.to_string().contains("a request may match route 1 (a/p (header y)) and route 0"), "{pair}");
    assert_eq!(built.unwrap_err(), [pair]);
}

/// 10,000 routes on one path, selected by a header: a lookup reads the value once and finds its bucket.
#[test]
fn many_routes_of_one_path_are_found_by_their_value() {
    let of = |number: usize| with("* * /", &format!(r#"{{"headers":{{"x-tenant":{{"exact":"t{number}"}}}}}}"#));
    let table = Table::build((0..10_000).map(|number| (of(number), number))).unwrap();
    for number in [0, 1, 4_711, 9_999] {
        assert_eq!(find(&table, "/x", &Method::GET, &[("x-tenant", &format!("t{number}"))]), Some(number));
    }
    assert_eq!(find(&table, "/x", &Method::GET, &[("x-tenant", "none")]), None);
}

#[test]
fn invalid_conditions_are_faults() {
    let (empty, name) = (std::collections::BTreeMap::new(), |text: &str| text.to_owned());
    for (header, json, problem) in [
        ("X-A", "{}", "one of exact, prefix, regex and present"),
        ("X-A", r#"{"exact":"a","prefix":"b"}"#, "one of exact, prefix, regex and present"),
        ("X-A", r#"{"prefix":""}"#, "every value starts with an empty text"),
        ("X-A", r#"{"regex":"("}"#, "is not a regular expression"),
        ("a b", r#"{"present":true}"#, "`a b` is not a header name"),
        ("Host", r#"{"exact":"a"}"#, "the host is not a condition"),
        ("X-Forwarded-For", r#"{"exact":"a"}"#, "clients may forge"),
    ] {
        let headers = [(name(header), serde_json::from_str(json).unwrap())].into_iter().collect();
        let given = Given {
            headers: &headers,
            query: &empty,
            cookies: &empty,
            clients: &[],
            except_clients: &[],
            priority: Some(1),
        };
        let mut faults = Faults::default();
        given.check(&Place::root(), &mut faults);
        let faults = faults.into_vec();
        assert!(faults.len() == 1 && faults[0].problem.contains(problem), "{header} {json}: {faults:?}");
    }
}

const MEASURED: usize = 1_000;

/// Lookups in a table whose routes have one path and a value of a header field each.
#[inline(never)]
fn measured_lookups_by_header(table: &Table<usize>, facts: &RequestFacts<'_>) {
    for _ in 0..MEASURED {
        assert_eq!(table.find_for(Some("a"), facts.uri.path(), &Method::GET, facts), Some(&7));
    }
}

/// Lookups in a table whose routes have a path and a condition each.
#[inline(never)]
fn measured_lookups_by_path_with_conditions(table: &Table<usize>, facts: &RequestFacts<'_>) {
    for _ in 0..MEASURED {
        assert_eq!(table.find_for(Some("a"), facts.uri.path(), &Method::GET, facts), Some(&7));
    }
}

/// Lookups in a table without conditions.
#[inline(never)]
fn measured_lookups_without_conditions(table: &Table<usize>, facts: &RequestFacts<'_>) {
    for _ in 0..MEASURED {
        assert_eq!(table.find_for(Some("a"), facts.uri.path(), &Method::GET, facts), Some(&7));
    }
}

fn lookups_among(count: usize) {
    let condition = |number: usize| format!(r#"{{"headers":{{"x-tenant":{{"exact":"t{number}"}}}}}}"#);
    let table = |of: &dyn Fn(usize) -> Matcher| Table::build((0..count).map(|number| (of(number), number))).unwrap();
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-tenant"), HeaderValue::from_static("t7"))]);
    let uri = Uri::from_static("/p7/x");
    let facts = RequestFacts { headers: &headers, uri: &uri, client: IpAddr::from([192, 0, 2, 1]) };
    measured_lookups_by_header(&table(&|number| with("* * /", &condition(number))), &facts);
    let by_path = |number: usize| with(&format!("* * /p{number}"), &condition(number));
    measured_lookups_by_path_with_conditions(&table(&by_path), &facts);
    measured_lookups_without_conditions(&table(&|number| matcher(&format!("* * /p{number}"))), &facts);
}

#[test]
#[ignore = "for callgrind: instructions of lookups among 10 routes"]
fn lookups_among_ten_routes_find_the_same_route() {
    lookups_among(10);
}

#[test]
#[ignore = "for callgrind: instructions of lookups among 10,000 routes"]
fn lookups_among_ten_thousand_routes_find_the_same_route() {
    lookups_among(10_000);
}
