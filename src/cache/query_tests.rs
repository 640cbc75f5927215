//! Tests of the part of a query that belongs to the key.

use super::*;

fn check(rule: &QueryRule, cases: &[(Option<&str>, Option<&str>, &str)]) {
    for (query, expected, reason) in cases {
        assert_eq!(of_key(*query, rule).as_deref(), *expected, "{rule:?} {query:?} {reason}");
    }
}

fn only_named(names: &[&str]) -> QueryRule {
    QueryRule::Only(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn whole_query_and_no_query_are_taken_literally() {
    check(
        &QueryRule::Whole,
        &[
            (None, None, "RFC 3986 §3.4"),
            (Some(""), Some(""), "RFC 3986 §3.4"),
            (Some("b=1&a=2&&"), Some("b=1&a=2&&"), "RFC 3986 §3.4"),
            (Some("utm_source=x"), Some("utm_source=x"), "RFC 3986 §3.4"),
        ],
    );
    check(&QueryRule::None, &[(None, None, "no query"), (Some("a=1"), None, "ignored"), (Some(""), None, "ignored")]);
}

#[test]
fn sorted_query_has_its_parameters_in_the_order_of_names() {
    check(
        &QueryRule::Sorted,
        &[
            (None, None, "no query"),
            (Some(""), Some(""), "an empty query is not none"),
            (Some("b=1&a=2"), Some("a=2&b=1"), "names"),
            (Some("a=2&a=1"), Some("a=2&a=1"), "stable: the order of equal names matters"),
            (Some("b&a=1&a"), Some("a=1&a&b"), "a name without a value"),
            (Some("ab=1&a=2"), Some("a=2&ab=1"), "a prefix comes first"),
            (Some("b=1&&a=2"), Some("&a=2&b=1"), "an empty parameter stays"),
            (Some("a=1&%61=2"), Some("a=1&%61=2"), "may be read as one name, so the order stays"),
            (Some("%61=2&a=1"), Some("%61=2&a=1"), "may be read as one name, so the order stays"),
            (Some("A=1&a=2"), Some("A=1&a=2"), "may be read as one name, so the order stays"),
            (Some("x[]=2&x[]=1"), Some("x[]=2&x[]=1"), "stable"),
            (Some("b=1;c=2&a=3"), Some("b=1;c=2&a=3"), "a backend may split at the semicolon"),
        ],
    );
}

#[test]
fn tracking_parameters_are_no_part_of_the_key() {
    check(
        &QueryRule::WithoutTracking,
        &[
            (None, None, "no query"),
            (Some(""), Some(""), "nothing is removed"),
            (Some("b=1&a=2"), Some("b=1&a=2"), "the order stays"),
            (Some("utm_source=x"), None, "as without a query"),
            (Some("utm_source=x&a=1"), Some("a=1"), "first"),
            (Some("a=1&utm_medium=x&b=2"), Some("a=1&b=2"), "in the middle"),
            (Some("a=1&gclid=x&fbclid=y"), Some("a=1"), "last"),
            (Some("utm_source"), None, "without a value"),
            (Some("gclid=&_ga=&_gl=&ttclid=&twclid=&yclid=&igshid="), None, "click identifiers"),
            (Some("gbraid=&wbraid=&dclid=&msclkid=&mc_cid=&mc_eid="), None, "click identifiers"),
            (Some("xgclid=1"), Some("xgclid=1"), "another name"),
            (Some("gclid2=1"), Some("gclid2=1"), "another name"),
            (Some("utm=1"), Some("utm=1"), "another name"),
            (Some("UTM_source=1"), Some("UTM_source=1"), "names are case-sensitive"),
            (Some("utm%5fsource=1"), Some("utm%5fsource=1"), "an encoded name is another one"),
            (Some("%75tm_source=1"), Some("%75tm_source=1"), "an encoded name is another one"),
            (Some("a=utm_source"), Some("a=utm_source"), "a value"),
            (Some("a=1;utm_source=2"), Some("a=1;utm_source=2"), "the value of a"),
            (Some("utm_source=1;a=2"), Some("utm_source=1;a=2"), "cloaking: a backend may split at the semicolon"),
            (Some("utm_source=1;"), Some("utm_source=1;"), "cloaking"),
            (Some("utm_source=1;utm_term=2"), None, "tracking in both readings"),
            (Some("utm_source=1%3Ba=2"), None, "an encoded semicolon separates nothing"),
            (Some("utm_source=1%26a=2"), None, "an encoded ampersand separates nothing"),
            (Some("utm_source=1&&a=1"), Some("&a=1"), "an empty parameter stays"),
        ],
    );
}

#[test]
fn only_named_parameters_are_part_of_the_key() {
    check(
        &only_named(&["b", "a"]),
        &[
            (None, None, "no query"),
            (Some(""), None, "none of them"),
            (Some("c=1"), None, "none of them"),
            (Some("b=1&c=2&a=3"), Some("a=3&b=1"), "sorted"),
            (Some("a=2&a=1"), Some("a=2&a=1"), "stable"),
            (Some("a"), Some("a"), "without a value"),
            (Some("ab=1&ba=2"), None, "other names"),
            (Some("c=a=1"), None, "a value"),
            (Some("%61=1"), Some("%61=1"), "cloaking: a backend decodes the name"),
            (Some("%61=1&a=2"), Some("%61=1&a=2"), "cloaking: a backend uses the first"),
            (Some("A=1"), Some("A=1"), "cloaking: a backend ignores the case"),
            (Some("c=1;a=2"), Some("c=1;a=2"), "cloaking: a backend splits at the semicolon"),
            (Some("c=1%3Ba=2"), None, "an encoded semicolon separates nothing"),
            (Some("a[]=1"), Some("a[]=1"), "cloaking: an index"),
            (Some("a%00x=1"), Some("a%00x=1"), "cloaking: the end of a string"),
            (Some("+a=1"), Some("+a=1"), "cloaking: a leading space"),
            (Some("%2=1&%zz=2&%=3"), None, "incomplete encodings are literal"),
        ],
    );
    check(&only_named(&["a_b"]), &[(Some("a.b=1"), Some("a.b=1"), "cloaking: dots as in PHP")]);
    check(&only_named(&["Name"]), &[(Some("Name=1"), Some("Name=1"), "the name itself")]);
    check(&only_named(&[]), &[(Some("a=1"), None, "no names")]);
}
