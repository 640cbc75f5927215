//! Tests of references: the examples of RFC 3986 §5.4, origins, and what l7lb rejects.

use super::*;

fn base<'a>(scheme: &'a str, host: &'a str) -> Target<'a> {
    Target { space: "", scheme, scheme_in_key: false, host, path: "/b/c/d;p", query: Some("q") }
}

fn resolved(base: &Target<'_>, reference: &str) -> Option<String> {
    resolve(base, reference).map(|found| match found.query {
        Some(query) => format!("{}?{query}", found.path),
        None => found.path,
    })
}

#[test]
fn relative_references_resolve_against_the_target() {
    // Reference, path and query, section of RFC 3986.
    let cases = [
        ("g", "/b/c/g", "§5.4.1"),
        ("./g", "/b/c/g", "§5.4.1"),
        ("g/", "/b/c/g/", "§5.4.1"),
        ("/g", "/g", "§5.4.1"),
        ("?y", "/b/c/d;p?y", "§5.4.1"),
        ("g?y", "/b/c/g?y", "§5.4.1"),
        ("#s", "/b/c/d;p?q", "§5.4.1"),
        ("g#s", "/b/c/g", "§5.4.1"),
        ("g?y#s", "/b/c/g?y", "§5.4.1"),
        (";x", "/b/c/;x", "§5.4.1"),
        ("g;x?y#s", "/b/c/g;x?y", "§5.4.1"),
        ("", "/b/c/d;p?q", "§5.4.1"),
        (".", "/b/c/", "§5.4.1"),
        ("./", "/b/c/", "§5.4.1"),
        ("..", "/b/", "§5.4.1"),
        ("../", "/b/", "§5.4.1"),
        ("../g", "/b/g", "§5.4.1"),
        ("../..", "/", "§5.4.1"),
        ("../../g", "/g", "§5.4.1"),
        ("../../../g", "/g", "§5.4.2"),
        ("../../../../g", "/g", "§5.4.2"),
        ("../../../..", "/", "§5.4.2"),
        ("/./g", "/g", "§5.4.2"),
        ("/../g", "/g", "§5.4.2"),
        ("g.", "/b/c/g.", "§5.4.2"),
        ("..g", "/b/c/..g", "§5.4.2"),
        ("./../g", "/b/g", "§5.4.2"),
        ("g/./h", "/b/c/g/h", "§5.4.2"),
        ("g/../h", "/b/c/h", "§5.4.2"),
        ("g?y/../x", "/b/c/g?y/../x", "§5.4.2"),
        ("g#s/../x", "/b/c/g", "§5.4.2"),
        ("?", "/b/c/d;p?", "§3.4"),
        (" /g ", "/g", "whitespace of the field"),
        ("/%67", "/g", "§6.2.2.2"),
        ("/a%2fb", "/a%2Fb", "§6.2.2.1"),
        ("/%2e%2e/g", "", "leaves the root only when decoded: l7lb rejects it"),
        ("/a b", "", "RFC 9112 §3.2: not a target"),
        ("/a%zz", "", "§2.1"),
        ("/a?b\"c", "/a?b%22c", "as l7lb forwards it"),
        ("./a:b", "/b/c/a:b", "§4.2"),
        ("1:b", "/b/c/1:b", "§3.1: not a scheme"),
    ];
    for (reference, expected, section) in cases {
        let found = resolved(&base("http", "a.test"), reference);
        assert_eq!(found.unwrap_or_default(), expected, "{reference} {section}");
    }
}

#[test]
fn absolute_references_resolve_only_with_the_same_origin() {
    // Scheme and host of the request, reference, path and query, section.
    let cases = [
        ("http", "a.test", "http://a.test/x?y", Some("/x?y"), "RFC 9110 §4.3.1"),
        ("http", "a.test", "HTTP://A.TEST/x", Some("/x"), "RFC 9110 §4.2.3"),
        ("http", "a.test", "http://a.test", Some("/"), "RFC 9110 §4.2.3"),
        ("http", "a.test", "http://a.test?y", Some("/?y"), "RFC 3986 §6.2.3"),
        ("http", "a.test", "http://a.test#s", Some("/"), "RFC 3986 §5.2.2"),
        ("http", "a.test", "http://a.test:80/x", Some("/x"), "RFC 9110 §4.2.3"),
        ("http", "a.test:80", "http://a.test/x", Some("/x"), "RFC 9110 §4.2.3"),
        ("https", "a.test", "https://a.test:443/x", Some("/x"), "RFC 9110 §4.2.3"),
        ("http", "a.test:8080", "http://a.test:8080/x", Some("/x"), "RFC 9110 §4.3.1"),
        ("http", "a.test:8080", "http://a.test/x", None, "RFC 9110 §4.3.1"),
        ("http", "a.test", "http://a.test:8080/x", None, "RFC 9110 §4.3.1"),
        ("http", "a.test", "https://a.test/x", None, "RFC 9110 §4.3.1"),
        ("https", "a.test", "http://a.test/x", None, "RFC 9110 §4.3.1"),
        ("http", "a.test", "http://b.test/x", None, "RFC 9111 §4.4"),
        ("http", "a.test", "http://x.a.test/x", None, "RFC 9111 §4.4"),
        ("http", "a.test", "//a.test/x", Some("/x"), "RFC 3986 §5.4.1"),
        ("http", "a.test", "//b.test/x", None, "RFC 9111 §4.4"),
        ("http", "a.test", "///x", None, "RFC 9110 §4.2.1: an empty host"),
        ("http", "a.test", "http:///x", None, "RFC 9110 §4.2.1: an empty host"),
        ("http", "", "///x", None, "RFC 9110 §4.2.1: an empty host"),
        ("http", "a.test", "http:x", None, "RFC 9110 §4.2.1"),
        ("http", "a.test", "http:/x", None, "RFC 9110 §4.2.1"),
        ("http", "a.test", "mailto:a@a.test", None, "RFC 9111 §4.4"),
        ("http", "a.test", "javascript:x", None, "RFC 9111 §4.4"),
        ("http", "a.test", "http://u:p@a.test/x", Some("/x"), "RFC 9110 §4.2.4"),
        ("http", "a.test", "http://a.test@b.test/x", None, "RFC 9110 §4.2.4"),
        ("http", "[::1]", "http://[::1]:80/x", Some("/x"), "RFC 3986 §3.2.2"),
        ("http", "a.test", "http://a.test/x/../y", Some("/y"), "RFC 3986 §5.2.2"),
        ("http", "a.test", "http://a.test/../y", Some("/y"), "RFC 3986 §5.2.4"),
    ];
    for (scheme, host, reference, expected, section) in cases {
        assert_eq!(resolved(&base(scheme, host), reference).as_deref(), expected, "{host} {reference} {section}");
    }
}

#[test]
fn asterisk_target_has_no_folder_for_relative_references() {
    let asterisk = Target { path: "*", query: None, ..base("http", "a.test") };
    assert_eq!(resolved(&asterisk, "g"), None);
    assert_eq!(resolved(&asterisk, "/g").as_deref(), Some("/g"));
    assert_eq!(resolved(&asterisk, "").as_deref(), Some("*"));
}
