//! Tests of Vary: its names, and which requests share a variance.

use http::HeaderName;

use super::super::fixtures_tests::headers;
use super::*;

fn listed(text: &str) -> VaryNames {
    VaryNames::Names(text.split(' ').map(|name| HeaderName::try_from(name).unwrap()).collect())
}

fn names_of(lines: &[&str]) -> VaryNames {
    names(&headers(&lines.iter().map(|line| ("vary", *line)).collect::<Vec<_>>()))
}

#[test]
fn names_of_vary_are_sorted_and_unique() {
    // Lines of Vary, the names, section.
    let cases: &[(&[&str], VaryNames, &str)] = &[
        (&[], VaryNames::None, "RFC 9111 §4.1"),
        (&[""], VaryNames::None, "RFC 9110 §5.6.1.2"),
        (&[" , ,, "], VaryNames::None, "RFC 9110 §5.6.1.2"),
        (&["Foo"], listed("foo"), "RFC 9110 §12.5.5"),
        (&["foo,Bar"], listed("bar foo"), "RFC 9110 §12.5.5"),
        (&["foo \t, \tBar"], listed("bar foo"), "RFC 9110 §5.6.1"),
        (&["foo, FOO"], listed("foo"), "RFC 9110 §5.1"),
        (&["foo", "bar"], listed("bar foo"), "RFC 9110 §5.3"),
        (&["foo,", ",bar,,"], listed("bar foo"), "RFC 9110 §5.6.1.2"),
        (&["*"], VaryNames::Any, "RFC 9111 §4.1"),
        (&["*, *"], VaryNames::Any, "RFC 9111 §4.1"),
        (&["*", "*"], VaryNames::Any, "RFC 9111 §4.1"),
        (&[", *"], VaryNames::Any, "RFC 9111 §4.1"),
        (&["", "*"], VaryNames::Any, "RFC 9111 §4.1"),
        (&["*, Foo"], VaryNames::Any, "RFC 9111 §4.1"),
        (&["Foo, *"], VaryNames::Any, "RFC 9111 §4.1"),
        (&["Foo", "*"], VaryNames::Any, "RFC 9111 §4.1"),
        (&["foo bar"], VaryNames::Any, "RFC 9110 §5.6.2: not a name"),
        (&["\"foo\""], VaryNames::Any, "RFC 9110 §5.6.2: not a name"),
        (&["foo; bar"], VaryNames::Any, "RFC 9110 §5.6.2: not a name"),
        (&["é"], VaryNames::Any, "RFC 9110 §5.6.2: not a name"),
    ];
    for (lines, expected, section) in cases {
        assert_eq!(names_of(lines), *expected, "{lines:?} {section}");
    }
}

#[test]
fn more_than_sixteen_names_match_no_request() {
    let list = |count: usize| (0..count).map(|index| format!("h{index}")).collect::<Vec<_>>().join(", ");
    assert!(matches!(names_of(&[&list(16)]), VaryNames::Names(names) if names.len() == 16));
    assert_eq!(names_of(&[&list(17)]), VaryNames::Any);
    let repeated = vec!["foo"; 100].join(",");
    assert_eq!(names_of(&[&repeated]), listed("foo"));
}

#[test]
fn union_has_the_names_of_both() {
    let many =
        |start: usize| listed(&(start..start + 9).map(|index| format!("h{index}")).collect::<Vec<_>>().join(" "));
    // First, second, union.
    let cases = [
        (VaryNames::None, VaryNames::None, VaryNames::None),
        (VaryNames::None, listed("a"), listed("a")),
        (listed("a"), VaryNames::None, listed("a")),
        (listed("a c"), listed("b c"), listed("a b c")),
        (VaryNames::Any, listed("a"), VaryNames::Any),
        (VaryNames::None, VaryNames::Any, VaryNames::Any),
        (many(10), many(19), VaryNames::Any),
    ];
    for (first, second, expected) in cases {
        assert_eq!(union(&first, &second), expected, "{first:?} {second:?}");
    }
}

#[test]
fn variance_exists_only_with_names() {
    let request = headers(&[("foo", "1")]);
    assert_eq!(variance(&VaryNames::None, &request), None);
    assert_eq!(variance(&VaryNames::Any, &request), None);
    assert!(variance(&listed("foo"), &request).is_some());
    assert_ne!(variance(&listed("foo"), &request), variance(&listed("foo foo2"), &request));
}

type Lines<'a> = &'a [(&'a str, &'a str)];

/// Checks which requests share the variance of `names`.
fn check(names: &str, cases: &[(Lines<'_>, Lines<'_>, bool, &str)]) {
    for (first, second, shared, section) in cases {
        let of = |lines| variance(&listed(names), &headers(lines));
        assert_eq!(of(first) == of(second), *shared, "{first:?} {second:?} {section}");
    }
}

#[test]
fn requests_share_a_variance_if_their_selecting_headers_match() {
    check(
        "bar baz foo",
        &[
            (&[("foo", "1")], &[("foo", "1")], true, "RFC 9111 §4.1"),
            (&[("foo", "1")], &[("foo", "2")], false, "RFC 9111 §4.1"),
            (&[("foo", "1")], &[], false, "RFC 9111 §4.1: absent matches only absent"),
            (&[], &[], true, "RFC 9111 §4.1: absent in both"),
            (&[("foo", "")], &[], false, "RFC 9111 §4.1: absent is not empty"),
            (&[("foo", "1"), ("other", "2")], &[("foo", "1"), ("other", "3")], true, "RFC 9111 §4.1"),
            (&[("foo", "1"), ("bar", "abc")], &[("bar", "abc"), ("foo", "1")], true, "RFC 9110 §5.3"),
            (&[("foo", "1"), ("baz", "3")], &[("foo", "1"), ("baz", "3")], true, "RFC 9111 §4.1"),
            (&[("foo", "1"), ("bar", "2")], &[("foo", "1"), ("bar", "3")], false, "RFC 9111 §4.1"),
            (&[("foo", "1")], &[("bar", "1")], false, "RFC 9111 §4.1"),
            (&[("foo", "a"), ("bar", "b")], &[("foo", "b"), ("bar", "a")], false, "RFC 9111 §4.1"),
            (&[("foo", "Abc")], &[("foo", "abc")], false, "RFC 9111 §4.1: case of an unknown field"),
        ],
    );
}

#[test]
fn whitespace_and_lines_of_lists_do_not_change_the_variance() {
    check(
        "foo",
        &[
            (&[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")], true, "RFC 9110 §5.3"),
            (&[("foo", "1,2")], &[("foo", " 1, 2 ")], true, "RFC 9111 §4.1"),
            (&[("foo", "1 ,\t2")], &[("foo", "1,2")], true, "RFC 9111 §4.1"),
            (&[("foo", "1"), ("foo", "2"), ("foo", "3")], &[("foo", "1,2 , 3")], true, "RFC 9110 §5.3"),
            (&[("foo", "1, 2")], &[("foo", "2, 1")], false, "RFC 9110 §5.3: order"),
            (&[("foo", "1 2")], &[("foo", "12")], false, "RFC 9111 §4.1: not at a comma"),
            (&[("foo", "1  2")], &[("foo", "1 2")], false, "RFC 9111 §4.1: not at a comma"),
            (&[("foo", "1,,2")], &[("foo", "1,2")], false, "an unknown field may not be a list"),
            (&[("foo", "1, , 2")], &[("foo", "1,,2")], true, "RFC 9111 §4.1"),
            (&[("foo", "\"1, 2\"")], &[("foo", "\"1,2\"")], false, "RFC 9110 §5.6.4: inside quotes"),
            (&[("foo", "\"1\" , \"2\"")], &[("foo", "\"1\",\"2\"")], true, "RFC 9110 §5.6.4"),
            (&[("foo", "\"\\\"1, 2\"")], &[("foo", "\"\\\"1,2\"")], false, "RFC 9110 §5.6.4: an escaped quote"),
            (&[("foo", "\"\\\\\", 2")], &[("foo", "\"\\\\\",2")], true, "RFC 9110 §5.6.4: an escaped backslash"),
            (&[("foo", "\"1, 2")], &[("foo", "\"1,2")], false, "RFC 9110 §5.6.4: an open quote"),
        ],
    );
}

#[test]
fn values_of_fields_that_are_no_lists_are_compared_as_they_are() {
    check(
        "authorization cookie host user-agent",
        &[
            (&[("user-agent", "(a, b)")], &[("user-agent", "(a,b)")], false, "RFC 9110 §10.1.5"),
            (&[("cookie", "a=1, 2")], &[("cookie", "a=1,2")], false, "RFC 6265 §4.2"),
            (&[("cookie", "a=1"), ("cookie", "b=2")], &[("cookie", "a=1; b=2")], true, "RFC 9113 §8.2.3"),
            (&[("authorization", "x a, b")], &[("authorization", "x a,b")], false, "RFC 9110 §11.6.2"),
            (&[("host", "A.test")], &[("host", "a.test")], true, "RFC 9110 §7.2"),
        ],
    );
}

#[test]
fn accept_language_ignores_case_whitespace_order_and_notation_of_weights() {
    let section = "RFC 9110 §12.5.4";
    // Two values, whether they share a variance.
    let cases = [
        ("en, de", "de, en", true),
        ("en, de", "eN, De", true),
        ("en, de", " en ,   de", true),
        ("en, de", "en,,de,", true),
        ("en;q=1", "en", true),
        ("en;q=1.000, de", "en, de; q=1", true),
        ("en;q=0.5", "en;Q=0.50", true),
        ("en;q=0.5", "en ; q=0.500", true),
        ("en;q=0.5", "en;q=0.51", false),
        ("en, de;q=0.5", "de;q=0.5, en", true),
        ("en, de;q=0.5", "de, en;q=0.5", false),
        ("en", "en-us", false),
        ("en", "*", false),
        ("en", "en, de;q=0", false),
        ("en, en;q=0.5", "en;q=0.5, en", false),
        ("en;q=2", "en", false),
        ("en;q=0.1234", "en;q=0.123", false),
        ("en;q=x", "en", false),
        ("en;q=", "en", false),
        ("en;x=1", "en", false),
        ("en;q=1;x=1", "en", false),
        ("en us", "enus", false),
        ("en;q=1.001", "en", false),
        ("", "en", false),
    ];
    for (first, second, shared) in cases {
        let of = |value| [("accept-language", value)];
        check("accept-language", &[(&of(first), &of(second), shared, section)]);
    }
    let lines = [("accept-language", "en"), ("accept-language", "de")];
    check("accept-language", &[(&lines, &[("accept-language", "de, en")], true, "RFC 9110 §5.3")]);
    check("accept-language", &[(&[], &[("accept-language", "")], false, "RFC 9111 §4.1")]);
}

#[test]
fn accept_encoding_also_ignores_codings_that_are_not_acceptable() {
    let section = "RFC 9110 §12.5.3";
    // Two values, whether they share a variance.
    let cases = [
        ("gzip, br", "br,gzip", true),
        ("GZIP", "gzip", true),
        ("gzip, br;q=0", "gzip", true),
        ("gzip, br;q=0.0", "gzip", true),
        ("gzip, br;q=0.001", "gzip", false),
        ("br;q=0", "", true),
        ("gzip, *;q=0", "gzip", false),
        ("*, br;q=0", "*", false),
        ("gzip, identity;q=0", "gzip", false),
        ("gzip;q=0, gzip", "gzip", false),
        ("gzip", "x-gzip", false),
        ("gzip;q=0.8, br;q=1.0", "br, gzip;q=0.80", true),
        ("gzip, deflate", "gzip", false),
        ("gzip", "", false),
    ];
    for (first, second, shared) in cases {
        let of = |value| [("accept-encoding", value)];
        check("accept-encoding", &[(&of(first), &of(second), shared, section)]);
    }
    check("accept-encoding", &[(&[], &[("accept-encoding", "")], false, "RFC 9110 §12.5.3: absent is not empty")]);
    check("accept-encoding", &[(&[], &[("accept-encoding", "identity")], false, section)]);
}
