//! Tests of entity tags: forms, lists, comparisons.

use super::*;

const fn strong(opaque: &str) -> EntityTag<'_> {
    EntityTag::Valid { weak: false, opaque: opaque.as_bytes() }
}

const fn weak(opaque: &str) -> EntityTag<'_> {
    EntityTag::Valid { weak: true, opaque: opaque.as_bytes() }
}

const fn invalid(text: &str) -> EntityTag<'_> {
    EntityTag::Invalid(text.as_bytes())
}

#[test]
fn entity_tags_are_quoted_and_may_be_weak() {
    // Value, entity tag (RFC 9110 §8.8.3).
    let cases = [
        ("\"a\"", strong("a")),
        ("W/\"a\"", weak("a")),
        ("\"\"", strong("")),
        (" \"a\" ", strong("a")),
        ("\"aü\"", strong("aü")),
        ("\"a\\\"", strong("a\\")),
        ("\"a,b\"", strong("a,b")),
        ("a", invalid("a")),
        ("", invalid("")),
        ("\"a", invalid("\"a")),
        ("w/\"a\"", invalid("w/\"a\"")),
        ("W\\\"a\"", invalid("W\\\"a\"")),
        ("W\"a\"", invalid("W\"a\"")),
        ("W/ \"a\"", invalid("W/ \"a\"")),
        ("\"a b\"", invalid("\"a b\"")),
        ("\"a\"b", invalid("\"a\"b")),
        ("\"a\", \"b\"", invalid("\"a\", \"b\"")),
    ];
    for (value, expected) in cases {
        assert_eq!(EntityTag::read(value.as_bytes()), expected, "{value}");
    }
}

#[test]
fn lists_separate_their_members_at_commas_outside_quotes() {
    // Value, members (RFC 9110 §13.1.2, §5.6.1).
    let cases: &[(&str, &[EntityTag<'_>])] = &[
        ("", &[]),
        (" , ,", &[]),
        ("\"a\"", &[strong("a")]),
        ("\"a\",\"b\"", &[strong("a"), strong("b")]),
        ("\"a\" , W/\"b\"", &[strong("a"), weak("b")]),
        (",\"a\",,\"b\",", &[strong("a"), strong("b")]),
        ("\"a,b\", \"c\"", &[strong("a,b"), strong("c")]),
        ("a, \"b\"", &[invalid("a"), strong("b")]),
        ("\"a\"x, \"b\"", &[invalid("\"a\"x"), strong("b")]),
        ("\"a\" \"b\", \"c\"", &[invalid("\"a\" \"b\""), strong("c")]),
        ("\"a, b", &[invalid("\"a"), invalid("b")]),
        ("w/\"a\", W/\"b\"", &[invalid("w/\"a\""), weak("b")]),
    ];
    for (value, expected) in cases {
        assert_eq!(list(value.as_bytes()).collect::<Vec<_>>(), *expected, "{value}");
    }
}

#[test]
fn comparisons_are_those_of_the_specification() {
    // Two entity tags, whether they match strongly and weakly (RFC 9110 §8.8.3.2).
    let cases = [
        (weak("1"), weak("1"), false, true),
        (weak("1"), weak("2"), false, false),
        (weak("1"), strong("1"), false, true),
        (strong("1"), strong("1"), true, true),
        (strong("1"), strong("2"), false, false),
        (strong("a"), strong("A"), false, false),
        (invalid("1"), invalid("1"), false, true),
        (invalid("1"), strong("1"), false, true),
        (invalid("1"), weak("1"), false, true),
        (invalid("1"), strong("2"), false, false),
        (invalid("\"1"), strong("1"), false, false),
        (invalid("w/\"1\""), weak("1"), false, false),
    ];
    for (first, second, strongly, weakly) in cases {
        for (one, other) in [(&first, &second), (&second, &first)] {
            assert_eq!(one.matches_strongly(other), strongly, "{one:?} {other:?}");
            assert_eq!(one.matches_weakly(other), weakly, "{one:?} {other:?}");
        }
    }
}
