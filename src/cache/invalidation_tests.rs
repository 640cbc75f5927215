//! Tests of invalidation.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::*;
use crate::cache::key::readable;
use crate::cache::rules::QueryRule;

fn rules() -> KeyRules {
    KeyRules { host: true, query: QueryRule::Whole, headers: vec![], cookies: vec![] }
}

fn invalidated(method: &str, status: u16, fields: &[(HeaderName, &str)]) -> Vec<String> {
    let target =
        Target { space: "", scheme: "http", scheme_in_key: false, host: "a.test", path: "/b/c", query: Some("q") };
    let mut response = HeaderMap::new();
    for (name, value) in fields {
        response.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let (method, status) = (Method::from_bytes(method.as_bytes()).unwrap(), StatusCode::from_u16(status).unwrap());
    targets(&method, status, &target, &rules(), &response).iter().map(|key| readable(key)).collect()
}

#[test]
fn unsafe_methods_invalidate_the_target_unless_they_fail() {
    // Method, status, whether the target is invalidated, section.
    let cases = [
        ("POST", 200, true, "RFC 9111 §4.4"),
        ("PUT", 201, true, "RFC 9111 §4.4"),
        ("DELETE", 204, true, "RFC 9111 §4.4"),
        ("PATCH", 200, true, "RFC 9111 §4.4"),
        ("M-SEARCH", 200, true, "RFC 9111 §4.4: unknown safety"),
        ("PROPFIND", 207, true, "RFC 9111 §4.4: unknown safety"),
        ("post", 200, true, "RFC 9110 §9.1: methods are case-sensitive"),
        ("get", 200, true, "RFC 9110 §9.1: methods are case-sensitive"),
        ("POST", 302, true, "RFC 9111 §4.4: 3xx is no error"),
        ("POST", 303, true, "RFC 9111 §4.4: 3xx is no error"),
        ("POST", 404, false, "RFC 9111 §4.4: an error"),
        ("POST", 500, false, "RFC 9111 §4.4: an error"),
        ("DELETE", 403, false, "RFC 9111 §4.4: an error"),
        ("M-SEARCH", 500, false, "RFC 9111 §4.4: an error"),
        ("POST", 101, false, "RFC 9111 §4.4: not final"),
        ("GET", 200, false, "RFC 9110 §9.2.1: safe"),
        ("HEAD", 200, false, "RFC 9110 §9.2.1: safe"),
        ("OPTIONS", 200, false, "RFC 9110 §9.2.1: safe"),
        ("TRACE", 200, false, "RFC 9110 §9.2.1: safe"),
    ];
    for (method, status, expected, section) in cases {
        let found = invalidated(method, status, &[(LOCATION, "/x")]);
        let all: &[&str] = if expected { &["a.test/b/c?q", "a.test/x"] } else { &[] };
        assert_eq!(found, all, "{method} {status} {section}");
    }
}

#[test]
fn location_and_content_location_of_the_same_origin_are_invalidated() {
    let target = "a.test/b/c?q";
    // Fields, what is invalidated besides the target, section.
    type Fields<'a> = &'a [(HeaderName, &'a str)];
    let cases: &[(Fields<'_>, &[&str], &str)] = &[
        (&[], &[], "RFC 9111 §4.4"),
        (&[(LOCATION, "http://a.test/x")], &["a.test/x"], "RFC 9111 §4.4"),
        (&[(CONTENT_LOCATION, "/x?y")], &["a.test/x?y"], "RFC 9111 §4.4"),
        (&[(LOCATION, "x"), (CONTENT_LOCATION, "../y")], &["a.test/b/x", "a.test/y"], "RFC 9110 §10.2.2, §8.7"),
        (&[(LOCATION, "/x"), (CONTENT_LOCATION, "/x")], &["a.test/x"], "each once"),
        (&[(LOCATION, "http://a.test/b/c?q")], &[], "the target itself"),
        (&[(LOCATION, "")], &[], "RFC 3986 §5.2.2: the target itself"),
        (&[(LOCATION, "http://b.test/x")], &[], "RFC 9111 §4.4: another origin"),
        (&[(LOCATION, "https://a.test/x")], &[], "RFC 9111 §4.4: another origin"),
        (&[(LOCATION, "http://a.test:81/x")], &[], "RFC 9111 §4.4: another origin"),
        (&[(LOCATION, "/x#s")], &["a.test/x"], "RFC 9110 §10.2.2: a fragment"),
        (&[(LOCATION, "/\u{e4}")], &["a.test/%C3%A4"], "as l7lb forwards it"),
        (&[(LOCATION, "/x"), (LOCATION, "/y")], &["a.test/x", "a.test/y"], "several lines"),
    ];
    for (fields, expected, section) in cases {
        let found = invalidated("POST", 200, fields);
        let all: Vec<&str> = [target].iter().chain(*expected).copied().collect();
        assert_eq!(found, all, "{fields:?} {section}");
    }
}

#[test]
fn number_of_references_is_bounded() {
    let values: Vec<String> = (0..20).map(|index| format!("/{index}")).collect();
    let fields: Vec<(HeaderName, &str)> = values.iter().map(|value| (LOCATION, value.as_str())).collect();
    assert_eq!(invalidated("POST", 200, &fields).len(), 9);
}
