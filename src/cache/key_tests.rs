//! Tests of keys: what two requests must or must not share, the readable form, and random sequences of fields.

use http::{HeaderMap, HeaderName};

use super::super::fixtures_tests::{headers, key_rules as rules};
use super::*;

fn target<'a>(scheme: &'a str, host: &'a str, path: &'a str, query: Option<&'a str>) -> Target<'a> {
    Target { space: "", scheme, scheme_in_key: false, host, path, query }
}

type Lines<'a> = &'a [(&'a str, &'a str)];

type Parts<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

#[test]
fn targets_share_a_key_only_if_they_are_equivalent() {
    // First target, second target, whether they share a key, section.
    let cases: &[(Parts<'_>, Parts<'_>, bool, &str)] = &[
        (("http", "a.test", "/", None), ("http", "a.test", "/", None), true, "RFC 9111 §2"),
        (("http", "A.Test", "/", None), ("http", "a.tesT", "/", None), true, "RFC 9110 §4.2.3"),
        (("http", "a.test:80", "/", None), ("http", "a.test", "/", None), true, "RFC 9110 §4.2.3"),
        (("http", "a.test:", "/", None), ("http", "a.test", "/", None), true, "RFC 3986 §6.2.3"),
        (("http", "a.test:080", "/", None), ("http", "a.test", "/", None), true, "RFC 3986 §3.2.3"),
        (("https", "a.test:443", "/", None), ("https", "a.test", "/", None), true, "RFC 9110 §4.2.3"),
        (("http", "a.test:443", "/", None), ("http", "a.test", "/", None), false, "RFC 9110 §4.2.3"),
        (("https", "a.test:80", "/", None), ("https", "a.test", "/", None), false, "RFC 9110 §4.2.3"),
        (("http", "a.test:8080", "/", None), ("http", "a.test", "/", None), false, "RFC 9110 §4.2.3"),
        (("http", "a.test:8080", "/", None), ("http", "A.test:8080", "/", None), true, "RFC 9110 §4.2.3"),
        (("http", "[::1]:80", "/", None), ("http", "[::1]", "/", None), true, "RFC 3986 §3.2.2"),
        (("http", "[::80]", "/", None), ("http", "[:", "/", None), false, "RFC 3986 §3.2.2"),
        (("http", "[2001:DB8::1]", "/", None), ("http", "[2001:db8::1]", "/", None), true, "RFC 3986 §3.2.2"),
        (("http", "a.test.", "/", None), ("http", "a.test", "/", None), false, "RFC 3986 §3.2.2"),
        (("http", "a.test", "/", None), ("https", "a.test", "/", None), true, "scheme is not part"),
        (("http", "a.test", "/a", None), ("http", "a.test", "/A", None), false, "RFC 3986 §6.2.2.1"),
        (("http", "a.test", "/a", None), ("http", "a.test", "/a/", None), false, "RFC 3986 §3.3"),
        (("http", "a.test", "//", None), ("http", "a.test", "/", None), false, "RFC 3986 §3.3"),
        (("http", "a.test", "/a", Some("")), ("http", "a.test", "/a", None), false, "RFC 3986 §3.4"),
        (("http", "a.test", "/a", Some("b")), ("http", "a.test", "/a?b", None), false, "RFC 3986 §3.4"),
        (("http", "a.test", "/a", Some("x=1&y")), ("http", "a.test", "/a", Some("y&x=1")), false, "RFC 3986 §3.4"),
        (("http", "a.testp1:", "/", None), ("http", "a.test", "p1:/", None), false, "RFC 9111 §2"),
    ];
    for (first, second, shared, section) in cases {
        let key = |(scheme, host, path, query): &Parts<'_>| uri_key(&target(scheme, host, path, *query), &rules());
        assert_eq!(key(first) == key(second), *shared, "{first:?} {second:?} {section}");
    }
}

#[test]
fn scheme_space_and_host_are_part_of_the_key_if_asked() {
    let base = target("http", "a.test", "/", None);
    let with_scheme = |scheme| uri_key(&Target { scheme, scheme_in_key: true, ..base }, &rules());
    assert_ne!(with_scheme("http"), with_scheme("https"));
    assert_ne!(with_scheme("http"), uri_key(&base, &rules()));
    let with_space = |space| uri_key(&Target { space, ..base }, &rules());
    assert_ne!(with_space("a"), with_space("b"));
    assert_eq!(with_space(""), uri_key(&base, &rules()));
    let without_host = KeyRules { host: false, ..rules() };
    assert_eq!(uri_key(&base, &without_host), uri_key(&target("http", "b.test", "/", None), &without_host));
    assert_ne!(uri_key(&base, &without_host), uri_key(&base, &rules()));
}

#[test]
fn keys_of_different_rules_differ_for_the_same_request() {
    let names = |names: &[&str]| QueryRule::Only(names.iter().map(|name| (*name).to_owned()).collect());
    let all = [
        QueryRule::Whole,
        QueryRule::Sorted,
        QueryRule::WithoutTracking,
        names(&["a"]),
        names(&["a", "b"]),
        QueryRule::None,
    ];
    for query in [None, Some("a=1")] {
        let key = |rule: &QueryRule| {
            uri_key(&target("http", "a.test", "/", query), &KeyRules { query: rule.clone(), ..rules() })
        };
        let keys: std::collections::HashSet<Vec<u8>> = all.iter().map(key).collect();
        assert_eq!(keys.len(), all.len(), "{query:?}");
    }
}

#[test]
fn headers_of_the_key_separate_requests_by_their_values() {
    let rules = KeyRules { headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")], ..rules() };
    // First request, second request, whether they share a key, section.
    let cases: &[(Lines<'_>, Lines<'_>, bool, &str)] = &[
        (&[], &[], true, "RFC 9111 §2"),
        (&[("x-a", "1")], &[("X-A", "1")], true, "RFC 9110 §5.1"),
        (&[("x-a", "1")], &[("x-a", "2")], false, "RFC 9111 §2"),
        (&[("x-a", "")], &[], false, "missing is not empty"),
        (&[("x-a", "1")], &[("x-b", "1")], false, "RFC 9111 §2"),
        (&[("x-a", "1"), ("x-a", "2")], &[("x-a", "1, 2")], false, "a backend may use one line only"),
        (&[("x-a", "1"), ("x-a", "2")], &[("x-a", "1")], false, "a backend may use the last line"),
        (&[("x-a", "1"), ("x-a", "2")], &[("x-a", "2")], false, "a backend may use the first line"),
        (&[("x-a", "1"), ("x-a", "2")], &[("x-a", "2"), ("x-a", "1")], false, "RFC 9110 §5.3"),
        (&[("x-a", "1"), ("x-a", "2"), ("x-a", "3")], &[("x-a", "1"), ("x-a", "2")], false, "RFC 9111 §2"),
        (&[("x-c", "1")], &[], true, "not part of the key"),
        (&[("x-a", "a"), ("x-b", "b")], &[("x-a", "an3:x-bv1:b")], false, "RFC 9111 §2"),
        (&[("x-a", "é")], &[("x-a", "e")], false, "RFC 9110 §5.5"),
    ];
    let target = target("http", "a.test", "/", None);
    for (first, second, shared, section) in cases {
        let key = |lines| Key::new(&target, &rules, &headers(lines));
        assert_eq!(key(first) == key(second), *shared, "{first:?} {second:?} {section}");
        assert_eq!(key(first).uri(), uri_key(&target, &rules), "{first:?}");
    }
}

#[test]
fn cookies_of_the_key_are_all_with_the_name() {
    // Cookie lines, the value of `theme`, section.
    let cases: &[(&[&str], Option<&str>, &str)] = &[
        (&[], None, "RFC 6265 §4.2"),
        (&["theme=dark"], Some("dark"), "RFC 6265 §4.2"),
        (&["a=1; theme=dark; b=2"], Some("dark"), "RFC 6265 §4.2"),
        (&["a=1;theme=dark;b=2"], Some("dark"), "RFC 6265 §5.2"),
        (&["a=1", "theme=dark"], Some("dark"), "RFC 9113 §8.2.3"),
        (&["theme=\"dark\""], Some("\"dark\""), "RFC 6265 §4.2: quotes are part of the value"),
        (&["theme=a=b"], Some("a=b"), "RFC 6265 §5.2"),
        (&["theme="], Some(""), "RFC 6265 §5.2"),
        (&["theme"], Some(""), "no value"),
        (&["theme = dark"], Some("dark"), "RFC 6265 §5.2"),
        (&["theme=light; theme=dark"], Some("light"), "RFC 6265 §5.4"),
        (&["theme=light", "theme=dark"], Some("light"), "RFC 9113 §8.2.3"),
        (&["Theme=dark"], None, "RFC 6265 §5.3: names are case-sensitive"),
        (&["xtheme=dark"], None, "RFC 6265 §5.3"),
        (&["themes=dark"], None, "RFC 6265 §5.3"),
        (&["a=theme=dark"], None, "RFC 6265 §5.2"),
        (&["a=\"; theme=dark\""], Some("dark\""), "RFC 6265 §5.2: quotes do not protect a semicolon"),
    ];
    for (lines, value, section) in cases {
        let lines: Vec<(&str, &str)> = lines.iter().map(|line| ("cookie", *line)).collect();
        let found = headers(&lines);
        let found = cookies(&found).find(|(name, _)| *name == b"theme");
        let found = found.map(|(_, value)| std::str::from_utf8(value).unwrap());
        assert_eq!(found, *value, "{lines:?} {section}");
    }
    let rules = KeyRules { cookies: vec!["theme".to_owned()], ..rules() };
    let key = |lines: &[(&str, &str)]| Key::new(&target("http", "a.test", "/", None), &rules, &headers(lines));
    assert_ne!(key(&[]), key(&[("cookie", "theme=")]));
    assert_eq!(key(&[("cookie", "theme=a; x=1")]), key(&[("cookie", "x=2; theme=a")]));
    // A backend may use the first or the last cookie with a name.
    let keys = ["theme=a", "theme=b", "theme=a; theme=b", "theme=b; theme=a", "theme=a; theme=a", "theme=a; theme"];
    for (number, first) in keys.iter().enumerate() {
        for second in &keys[number + 1..] {
            assert_ne!(key(&[("cookie", first)]), key(&[("cookie", second)]), "{first} {second}");
        }
    }
    assert_eq!(key(&[("cookie", "theme=a; x=1; theme=b")]), key(&[("cookie", "theme=a"), ("cookie", "theme=b")]));
}

#[test]
fn readable_form_names_all_parts_of_a_key() {
    let rules = KeyRules {
        query: QueryRule::Only(vec!["a".to_owned()]),
        headers: vec![HeaderName::from_static("accept-language"), HeaderName::from_static("x-b")],
        cookies: vec!["theme".to_owned()],
        ..rules()
    };
    let target = Target {
        space: "shop",
        scheme: "https",
        scheme_in_key: true,
        host: "Example.com:443",
        path: "/p",
        query: Some("b=2&a=1"),
    };
    let key = Key::new(&target, &rules, &headers(&[("accept-language", "de\u{e4}")]));
    let expected =
        "https://example.com/p?a=1 [accept-language: de\\xc3\\xa4] [x-b missing] [cookie theme missing] [space shop]";
    assert_eq!(readable(key.as_bytes()), expected);
    assert_eq!(readable(&key.clone().into_bytes()), expected);
    let without_host = KeyRules { host: false, query: QueryRule::None, headers: vec![], cookies: vec![] };
    assert_eq!(readable(&uri_key(&Target { space: "", scheme_in_key: false, ..target }, &without_host)), "*/p");
}

#[test]
fn bytes_that_are_no_key_are_escaped() {
    for bytes in ["x", "p", "p5:", "p5:abc", "p5", "px:abc", "p99999999999999999999:a", "p18446744073709551615:a", ":"]
    {
        assert_eq!(readable(bytes.as_bytes()), bytes);
        assert_eq!(uri_parts(bytes.as_bytes()).uri, bytes.as_bytes());
    }
    assert_eq!(readable(b"\xff\n"), "\\xff\\n");
}

#[test]
fn parts_of_a_key_are_those_of_its_target() {
    let with_all =
        KeyRules { headers: vec![HeaderName::from_static("x-a")], cookies: vec!["theme".to_owned()], ..rules() };
    let without_host = KeyRules { host: false, ..with_all.clone() };
    let only_cookies = KeyRules { headers: vec![], ..with_all.clone() };
    for rules in [rules(), with_all, without_host, only_cookies] {
        let key = Key::new(&target("http", "A.test:80", "/p", Some("n3:x-a")), &rules, &HeaderMap::new());
        let parts = uri_parts(key.as_bytes());
        assert_eq!(parts.uri, key.uri());
        assert_eq!(parts.path, "/p");
        assert_eq!(parts.host, if rules.host { "a.test" } else { "" });
    }
}

#[test]
fn random_targets_and_headers_share_a_key_only_if_they_are_equal() {
    let mut state = 1_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let alphabet = ["", "a", "1:", "p1:/", "v-", "N-", "h1:a", "c1:av1:b"];
    let rules = KeyRules {
        headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")],
        cookies: vec!["a".to_owned()],
        ..rules()
    };
    let mut seen = std::collections::HashMap::new();
    for _ in 0..20_000 {
        let mut word = || alphabet[usize::try_from(random(8)).unwrap()];
        let (space, host, path, query, first, second, value) = (word(), word(), word(), word(), word(), word(), word());
        let identity = (space, normal_host(host, "http"), path, query, first, second, value);
        let lines = headers(&[("x-a", first), ("x-b", second), ("cookie", &format!("a={value}"))]);
        let target = Target { space, ..target("http", host, path, Some(query)) };
        let key = Key::new(&target, &rules, &lines).into_bytes();
        let known = seen.entry(key).or_insert_with(|| identity.clone());
        assert_eq!(*known, identity);
    }
}
