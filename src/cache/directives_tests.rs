//! Tests of Cache-Control and Pragma.

use http::HeaderValue;

use super::*;

fn map(name: &HeaderName, lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
    }
    headers
}

fn response(lines: &[&str]) -> CacheControl {
    CacheControl::of_response(&map(&CACHE_CONTROL, lines))
}

fn names(names: &[&'static str]) -> Option<Fields> {
    Some(Fields::Names(names.iter().copied().map(HeaderName::from_static).collect()))
}

#[test]
fn max_age_of_one_line_has_the_value_of_rfc_9111() {
    let cases: [(&str, &str, Option<u64>); 43] = [
        ("§5.2.2.1", "max-age=3600", Some(3600)),
        ("§5.2.2.1", "max-age=0", Some(0)),
        ("§5.2 names in any case", "MaX-aGe=3600", Some(3600)),
        ("§5.2 names in any case", "MAX-AGE=3600", Some(3600)),
        ("§5.2 quoted form", "max-age=\"3600\"", Some(3600)),
        ("§5.2 escapes of a quoted string", "max-age=\"36\\00\"", Some(3600)),
        ("§1.2.2 leading zeros", "max-age=003600", Some(3600)),
        ("§1.2.2 2^31 - 1", "max-age=2147483647", Some(2_147_483_647)),
        ("§1.2.2 2^31", "max-age=2147483648", Some(MAX_SECONDS)),
        ("§1.2.2 2^31 + 1", "max-age=2147483649", Some(MAX_SECONDS)),
        ("§1.2.2 2^32", "max-age=4294967296", Some(MAX_SECONDS)),
        ("§1.2.2 11 digits", "max-age=99999999999", Some(MAX_SECONDS)),
        ("§1.2.2 2^63", "max-age=9223372036854775808", Some(MAX_SECONDS)),
        ("§1.2.2 2^64", "max-age=18446744073709551616", Some(MAX_SECONDS)),
        ("§1.2.2 40 digits", "max-age=1000000000000000000000000000000000000000", Some(MAX_SECONDS)),
        ("§4.2.1 negative", "max-age=-3600", Some(0)),
        ("§4.2.1 sign", "max-age=+3600", Some(0)),
        ("§4.2.1 decimal", "max-age=1.5", Some(0)),
        ("§4.2.1 decimal", "max-age=3600.0", Some(0)),
        ("§4.2.1 single quotes", "max-age='3600'", Some(0)),
        ("§4.2.1 letter before", "max-age=a3600", Some(0)),
        ("§4.2.1 letter after", "max-age=3600a", Some(0)),
        ("§4.2.1 hexadecimal", "max-age=0x10", Some(0)),
        ("§4.2.1 exponent", "max-age=1e3", Some(0)),
        ("§4.2.1 no argument", "max-age", Some(0)),
        ("§4.2.1 empty argument", "max-age=", Some(0)),
        ("§4.2.1 empty string", "max-age=\"\"", Some(0)),
        ("§4.2.1 space in the string", "max-age=\" 3600\"", Some(0)),
        ("§5.2 space before =", "max-age =3600", Some(0)),
        ("§5.2 space after =", "max-age= 3600", Some(0)),
        ("§5.2 spaces around =", "max-age = 3600", Some(0)),
        ("§5.2 text after the argument", "max-age=3600 seconds", Some(0)),
        ("§5.2 parameter", "max-age=3600;x=1", Some(0)),
        ("§5.2 text after the string", "max-age=\"3600\"0", Some(0)),
        ("§5.2 another name", "x-max-age=3600", None),
        ("§5.2 another name", "max-age-x=3600", None),
        ("§5.2 a name with another character", "max_age=3600", None),
        ("RFC 9110 §5.6.1 empty elements", ", ,\t,max-age=3600,,", Some(3600)),
        ("RFC 9110 §5.6.3 tabs", "\tpublic\t,\tmax-age=3600\t", Some(3600)),
        ("§5.2.3 unknown directive", "foobar, max-age=3600", Some(3600)),
        ("§5.2.3 unknown directive with argument", "foo=bar, max-age=3600, baz=\"q\"", Some(3600)),
        ("RFC 9110 §5.5 no ASCII", "caf\u{e9}=\u{fc}, max-age=3600", Some(3600)),
        ("RFC 9110 §5.5 empty field", "", None),
    ];
    for (rule, line, expected) in cases {
        assert_eq!(response(&[line]).max_age, expected, "{rule}: {line}");
    }
}

#[test]
fn text_of_a_quoted_string_is_not_a_directive() {
    let cases: [(&str, &str, Option<u64>); 10] = [
        ("§5.2", "extension=\"max-age=3600\", max-age=1", Some(1)),
        ("§5.2", "max-age=1, extension=\"max-age=3600\"", Some(1)),
        ("§5.2", "extension=\"max-age=3600\", max-age=\"1\"", Some(1)),
        ("§5.2", "max-age=\"1\", extension=\"max-age=3600\"", Some(1)),
        ("§5.2", "extension=\"a, max-age=3600\"", None),
        ("§5.2", "extension=\"a, max-age=3600, b\"", None),
        ("RFC 9110 §5.6.4", "extension=\"a\\\", max-age=3600\"", None),
        ("RFC 9110 §5.6.4", "extension=\"a\\\\\", max-age=3600", Some(3600)),
        ("RFC 9110 §5.6.4", "\"a, max-age=3600\"", None),
        ("RFC 9110 §5.6.4", "a b\"c, max-age=3600\"", None),
    ];
    for (rule, line, expected) in cases {
        let directives = response(&[line]);
        assert_eq!(directives.max_age, expected, "{rule}: {line}");
        assert!(!directives.no_store, "{rule}: {line}");
    }
}

#[test]
fn field_with_a_string_that_does_not_end_counts_as_no_store() {
    for line in [
        "a=\"",
        "a=\"x, max-age=3600",
        "a=\"x\\",
        "max-age=60, a=\"b, no-store",
        "a b\"c, private",
        "private=\"set-cookie",
    ] {
        assert!(response(&[line]).no_store, "RFC 9110 §5.6.4: {line}");
    }
}

#[test]
fn repeated_lifetime_has_its_first_value_and_others_the_most_restrictive_one() {
    let cases: [(&[&str], CacheControl); 14] = [
        (&["max-age=3600, max-age=1"], CacheControl { max_age: Some(3600), ..Default::default() }),
        (&["max-age=1, max-age=3600"], CacheControl { max_age: Some(1), ..Default::default() }),
        (&["max-age=3600", "max-age=1800"], CacheControl { max_age: Some(3600), ..Default::default() }),
        (&["max-age=1", "max-age=1800"], CacheControl { max_age: Some(1), ..Default::default() }),
        (&["max-age=60, max-age=x"], CacheControl { max_age: Some(60), ..Default::default() }),
        (&["s-maxage=5", "s-maxage=3"], CacheControl { s_maxage: Some(5), ..Default::default() }),
        (&["min-fresh=5, min-fresh=9"], CacheControl { min_fresh: Some(9), ..Default::default() }),
        (&["min-fresh=5, min-fresh=x"], CacheControl { min_fresh: Some(5), ..Default::default() }),
        (&["max-stale=5, max-stale"], CacheControl { max_stale: Some(MaxStale::Seconds(5)), ..Default::default() }),
        (&["max-stale, max-stale=5"], CacheControl { max_stale: Some(MaxStale::Seconds(5)), ..Default::default() }),
        (&["max-stale=9, max-stale=5"], CacheControl { max_stale: Some(MaxStale::Seconds(5)), ..Default::default() }),
        (&["private=\"a\", private"], CacheControl { private: Some(Fields::All), ..Default::default() }),
        (&["no-cache, no-cache=\"a\""], CacheControl { no_cache: Some(Fields::All), ..Default::default() }),
        (&["no-cache=\"a\"", "no-cache=b"], CacheControl { no_cache: names(&["a", "b"]), ..Default::default() }),
    ];
    for (lines, expected) in cases {
        assert_eq!(response(lines), expected, "§4.2.1: {lines:?}");
    }
}

#[test]
fn each_directive_sets_its_own_field() {
    let cases: [(&str, &str, CacheControl); 24] = [
        ("§5.2.2.5", "no-store", CacheControl { no_store: true, ..Default::default() }),
        ("§5.2", "No-StOrE", CacheControl { no_store: true, ..Default::default() }),
        ("§5.2 superfluous argument", "no-store=1", CacheControl { no_store: true, ..Default::default() }),
        ("§5.2 malformed argument", "no-store =", CacheControl { no_store: true, ..Default::default() }),
        ("§5.2.2.9", "public", CacheControl { public: true, ..Default::default() }),
        ("§5.2 superfluous argument", "public=yes", CacheControl { public: true, ..Default::default() }),
        ("§5.2 malformed argument", "public =yes", CacheControl::default()),
        ("§5.2.2.2", "must-revalidate", CacheControl { must_revalidate: true, ..Default::default() }),
        ("§5.2.2.8", "proxy-revalidate", CacheControl { proxy_revalidate: true, ..Default::default() }),
        ("§5.2.2.3", "must-understand", CacheControl { must_understand: true, ..Default::default() }),
        ("§5.2.2.3", "must-understand;", CacheControl::default()),
        ("§5.2.2.6", "no-transform", CacheControl { no_transform: true, ..Default::default() }),
        ("RFC 8246", "immutable", CacheControl { immutable: true, ..Default::default() }),
        ("§5.2.1.7", "only-if-cached", CacheControl { only_if_cached: true, ..Default::default() }),
        ("§5.2.2.10", "s-maxage=7", CacheControl { s_maxage: Some(7), ..Default::default() }),
        ("§4.2.1", "s-maxage", CacheControl { s_maxage: Some(0), ..Default::default() }),
        (
            "RFC 5861 §3",
            "stale-while-revalidate=7",
            CacheControl { stale_while_revalidate: Some(7), ..Default::default() },
        ),
        (
            "RFC 5861 §3",
            "stale-while-revalidate",
            CacheControl { stale_while_revalidate: Some(0), ..Default::default() },
        ),
        ("RFC 5861 §4", "stale-if-error=\"7\"", CacheControl { stale_if_error: Some(7), ..Default::default() }),
        ("§5.2.1.3", "min-fresh=7", CacheControl { min_fresh: Some(7), ..Default::default() }),
        ("§5.2.1.3", "min-fresh=x", CacheControl::default()),
        ("§5.2.1.2", "max-stale", CacheControl { max_stale: Some(MaxStale::Any), ..Default::default() }),
        ("§5.2.1.2", "max-stale=7", CacheControl { max_stale: Some(MaxStale::Seconds(7)), ..Default::default() }),
        ("§5.2.1.2", "max-stale=x", CacheControl::default()),
    ];
    for (rule, line, expected) in cases {
        assert_eq!(response(&[line]), expected, "{rule}: {line}");
    }
}

#[test]
fn private_and_no_cache_have_field_names() {
    let cases: [(&str, &str, Option<Fields>); 15] = [
        ("§5.2.2.7", "", Some(Fields::All)),
        ("§5.2.2.7", "=\"set-cookie\"", names(&["set-cookie"])),
        ("§5.2.2.7 case", "=\"Set-Cookie\"", names(&["set-cookie"])),
        ("§5.2.2.7 token", "=set-cookie", names(&["set-cookie"])),
        ("§5.2.2.7 list", "=\"a, b\"", names(&["a", "b"])),
        ("§5.2.2.7 list", "=\"a,b , c\"", names(&["a", "b", "c"])),
        ("§5.2.2.7 empty members", "=\",a,,\"", names(&["a"])),
        ("§5.2.2.7 escapes", "=\"\\a\"", names(&["a"])),
        ("§5.2.2.7 no name", "=\"\"", Some(Fields::All)),
        ("§5.2.2.7 no name", "=\" , \"", Some(Fields::All)),
        ("§5.2.2.7 no argument", "=", Some(Fields::All)),
        ("§5.2.2.7 invalid name", "=\"a b\"", Some(Fields::All)),
        ("§5.2.2.7 invalid name", "=\"a, b:\"", Some(Fields::All)),
        ("§5.2 space", " =\"a\"", Some(Fields::All)),
        ("§5.2 text after the string", "=\"a\" b", Some(Fields::All)),
    ];
    for (rule, argument, expected) in cases {
        assert_eq!(response(&[&format!("private{argument}")]).private, expected, "{rule}: private{argument}");
        let line = format!("max-age=5, no-cache{argument}, public");
        let directives = response(&[&line]);
        assert_eq!(directives.no_cache, expected, "§5.2.2.4: {line}");
        assert!(directives.public && directives.max_age == Some(5), "§5.2: {line}");
    }
}

#[test]
fn restricted_fields_are_those_of_private_and_no_cache() {
    let directives = response(&["private=\"a\", no-cache=\"b, c\""]);
    assert_eq!(directives.restricted_fields().collect::<Vec<_>>(), ["a", "b", "c"], "§5.2.2.4, §5.2.2.7");
    assert_eq!(response(&["private, no-cache"]).restricted_fields().count(), 0);
    assert_eq!(response(&[]).restricted_fields().count(), 0);
}

#[test]
fn directives_that_forbid_stale_responses_are_those_of_section_4_2_4() {
    let cases: [(&str, bool); 9] = [
        ("must-revalidate", true),
        ("proxy-revalidate", true),
        ("s-maxage=2", true),
        ("no-cache", true),
        ("no-cache=\"a\"", false),
        ("max-age=2", false),
        ("public", false),
        ("immutable", false),
        ("stale-if-error=60", false),
    ];
    for (line, expected) in cases {
        assert_eq!(response(&[line]).forbids_stale(), expected, "§4.2.4: {line}");
    }
}

#[test]
fn pragma_counts_only_in_a_request_without_cache_control() {
    let cases: [(&[&str], &[&str], Option<Fields>); 9] = [
        (&[], &[], None),
        (&[], &["no-cache"], Some(Fields::All)),
        (&[], &["No-Cache"], Some(Fields::All)),
        (&[], &["foo, no-cache"], Some(Fields::All)),
        (&[], &["foo", "no-cache"], Some(Fields::All)),
        (&[], &["unrecognised-extension"], None),
        (&[], &["foo=\"no-cache\""], None),
        (&["max-age=60"], &["no-cache"], None),
        (&["no-cache"], &["foo"], Some(Fields::All)),
    ];
    for (cache_control, pragma, expected) in cases {
        let mut headers = map(&CACHE_CONTROL, cache_control);
        headers.extend(map(&PRAGMA, pragma));
        assert_eq!(CacheControl::of_request(&headers).no_cache, expected, "§5.4: {cache_control:?} {pragma:?}");
        let of_response = CacheControl::of_response(&map(&PRAGMA, pragma));
        assert_eq!(of_response, CacheControl::default(), "§5.4: {pragma:?} of a response");
    }
}

#[test]
fn every_line_up_to_five_bytes_of_syntax_is_read_without_a_panic() {
    let alphabet = b"a=\", \\\xff";
    for number in 0..alphabet.len().pow(5) {
        let line: Vec<u8> = (0..5).map(|place| alphabet[number / alphabet.len().pow(place) % alphabet.len()]).collect();
        let elements = Elements::of(&line).count();
        assert!(elements <= line.len(), "{line:?}");
    }
}
