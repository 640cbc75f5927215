//! Tests of CDN-Cache-Control.

use super::*;

fn map(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(CDN_CACHE_CONTROL, HeaderValue::from_bytes(line.as_bytes()).unwrap());
    }
    headers
}

fn max_age(seconds: u64) -> Option<CacheControl> {
    Some(CacheControl { max_age: Some(seconds), ..Default::default() })
}

#[test]
fn max_age_is_an_integer_of_structured_fields() {
    let cases: [(&str, &str, Option<CacheControl>); 34] = [
        ("RFC 9213 §2.1", "max-age=3600", max_age(3600)),
        ("RFC 9213 §2.1", "max-age=0", max_age(0)),
        ("RFC 9651 §3.3.1 leading zeros", "max-age=003600", max_age(3600)),
        ("RFC 9651 §3.3.1 minus zero", "max-age=-0", max_age(0)),
        ("RFC 9111 §1.2.2", "max-age=2147483648", max_age(MAX_SECONDS)),
        ("RFC 9111 §1.2.2", "max-age=99999999999", max_age(MAX_SECONDS)),
        ("RFC 9651 §3.3.1 15 digits", "max-age=999999999999999", max_age(MAX_SECONDS)),
        ("RFC 9651 §4.2.4 16 digits", "max-age=1000000000000000", None),
        ("RFC 9213 §2.1 negative", "max-age=-1", None),
        ("RFC 9213 §2.1 decimal", "max-age=1.5", None),
        ("RFC 9213 §2.1 string", "max-age=\"3600\"", None),
        ("RFC 9213 §2.1 token", "max-age=a3600", None),
        ("RFC 9213 §2.1 boolean", "max-age", None),
        ("RFC 9213 §2.1 inner list", "max-age=(3600)", None),
        ("RFC 9213 §2.1 wrong type, others remain", "max-age=1.5, s-maxage=\"1\", max-age=9", max_age(9)),
        ("RFC 9651 §4.2.4 dot at the end", "max-age=1.", None),
        ("RFC 9651 §4.2.4 4 decimals", "max-age=1.2345", None),
        ("RFC 9651 §4.2.4 sign", "max-age=+1", None),
        ("RFC 9651 §4.2.4 no digits", "max-age=-", None),
        ("RFC 9651 §4.2.2 letters after", "max-age=3600a", None),
        ("RFC 9651 §4.2.2 no value", "max-age=", None),
        ("RFC 9651 §4.2.2 space before =", "max-age =100", None),
        ("RFC 9651 §4.2.2 space after =", "max-age= 100", None),
        ("RFC 9651 §4.2.3.3 capitals", "MaX-aGe=3600", None),
        ("RFC 9651 §4.2.2 comma at the end", "max-age=3600,", None),
        ("RFC 9651 §4.2.2 empty member", "max-age=3600,,no-store", None),
        ("RFC 9651 §4.2.2 comma at the start", ",max-age=3600", None),
        ("RFC 9651 §4.2.2 unknown type", "max-age=10000, &&&&&", None),
        ("RFC 9651 §4.2.2 no ASCII", "max-age=10000, \u{e9}", None),
        ("RFC 9651 §4.2 spaces around", "  max-age=3600  ", max_age(3600)),
        ("RFC 9651 §4.2.2 tabs", "foo\t,\tmax-age=3600", max_age(3600)),
        ("RFC 9651 §4.2.2 last one counts", "max-age=1, max-age=3600", max_age(3600)),
        ("RFC 9213 §2.1 parameters", "max-age=3600;a;b=1; c=\"x\"", max_age(3600)),
        ("RFC 9651 §4.2.3.2 invalid parameter", "max-age=3600;A", None),
    ];
    for (rule, line, expected) in cases {
        assert_eq!(cdn_cache_control(&map(&[line])), expected, "{rule}: {line}");
    }
}

#[test]
fn directives_without_seconds_are_booleans_or_field_names() {
    let names = |name| Some(Fields::Names(vec![HeaderName::from_static(name)]));
    let cases: [(&str, &str, Option<CacheControl>); 17] = [
        ("RFC 9213 §2.1", "no-store", Some(CacheControl { no_store: true, ..Default::default() })),
        ("RFC 9651 §3.3.6", "no-store=?1", Some(CacheControl { no_store: true, ..Default::default() })),
        ("RFC 9651 §3.3.6", "no-store=?0", Some(CacheControl::default())),
        ("RFC 9651 §4.2.8", "no-store=?2", None),
        ("RFC 9213 §2.1 wrong type", "no-store=1", None),
        ("RFC 9213 §2.1", "public;x", Some(CacheControl { public: true, ..Default::default() })),
        ("RFC 9213 §2.1", "private", Some(CacheControl { private: Some(Fields::All), ..Default::default() })),
        (
            "RFC 9213 §2.1",
            "private=\"set-cookie\"",
            Some(CacheControl { private: names("set-cookie"), ..Default::default() }),
        ),
        ("RFC 9213 §2.1", "no-cache=x-a", Some(CacheControl { no_cache: names("x-a"), ..Default::default() })),
        ("RFC 9213 §2.1", "no-cache", Some(CacheControl { no_cache: Some(Fields::All), ..Default::default() })),
        ("RFC 9213 §2.1", "no-cache=?0", Some(CacheControl::default())),
        ("RFC 9213 §2.1 wrong type", "no-cache=5", None),
        ("RFC 9213 §2.1", "must-revalidate", Some(CacheControl { must_revalidate: true, ..Default::default() })),
        ("RFC 9213 §2.1", "stale-if-error=5", Some(CacheControl { stale_if_error: Some(5), ..Default::default() })),
        ("RFC 9213 §2.2 unknown directive", "foobar", Some(CacheControl::default())),
        ("RFC 9213 §2.2 empty", "", None),
        ("RFC 9213 §2.2 empty", "   ", None),
    ];
    for (rule, line, expected) in cases {
        assert_eq!(cdn_cache_control(&map(&[line])), expected, "{rule}: {line:?}");
    }
}

#[test]
fn value_of_an_unknown_directive_must_be_valid() {
    let cases: [(&str, &str, bool); 29] = [
        ("RFC 9651 §3.3.2", "a=-1.25", true),
        ("RFC 9651 §4.2.4", "a=1234567890123.1", false),
        ("RFC 9651 §3.3.3", "a=\"x\\\"y\\\\\"", true),
        ("RFC 9651 §4.2.5", "a=\"x\\y\"", false),
        ("RFC 9651 §4.2.5", "a=\"x", false),
        ("RFC 9651 §4.2.5", "a=\"x\\", false),
        ("RFC 9651 §4.2.5", "a=\"\u{e9}\"", false),
        ("RFC 9651 §4.2.5", "a=\"no-store, max-age=1\"", true),
        ("RFC 9651 §3.3.4", "a=*b/c:d", true),
        ("RFC 9651 §3.3.4", "*a.b_c-d=x", true),
        ("RFC 9651 §4.2.3.3", "1a", false),
        ("RFC 9651 §3.3.5", "a=:aGk=:", true),
        ("RFC 9651 §4.2.7", "a=:aGk=", false),
        ("RFC 9651 §4.2.7", "a=:a-k=:", false),
        ("RFC 9651 §3.3.7", "a=@1659578233", true),
        ("RFC 9651 §4.2.9", "a=@1.5", false),
        ("RFC 9651 §4.2.9", "a=@x", false),
        ("RFC 9651 §3.3.8", "a=%\"f%c3%bc\"", true),
        ("RFC 9651 §4.2.10", "a=%\"f%C3%BC\"", false),
        ("RFC 9651 §4.2.10", "a=%\"%ff\"", false),
        ("RFC 9651 §4.2.10", "a=%x", false),
        ("RFC 9651 §3.1.1", "a=()", true),
        ("RFC 9651 §3.1.1", "a=(1 \"b\";x c);y=?0", true),
        ("RFC 9651 §3.1.1", "a=(  1   2  )", true),
        ("RFC 9651 §4.2.1.2", "a=(1", false),
        ("RFC 9651 §4.2.1.2", "a=(1,2)", false),
        ("RFC 9651 §4.2.1.2", "a=((1))", false),
        ("RFC 9651 §4.2.1.2", "a=(1\"b\")", false),
        ("RFC 9651 §4.2.3.2", "a;b=;c", false),
    ];
    for (rule, member, is_valid) in cases {
        let line = format!("{member}, max-age=5");
        assert_eq!(cdn_cache_control(&map(&[&line])), max_age(5).filter(|_| is_valid), "{rule}: {line}");
    }
}

#[test]
fn field_lines_form_one_dictionary() {
    let cases: [(&[&str], Option<CacheControl>); 5] = [
        (&[], None),
        (&["foo", "max-age=5"], max_age(5)),
        (&["max-age=5", "max-age=9"], max_age(9)),
        (&["max-age=5", "&"], None),
        (&["max-age=5", ""], None),
    ];
    for (lines, expected) in cases {
        assert_eq!(cdn_cache_control(&map(lines)), expected, "RFC 9651 §4.2: {lines:?}");
    }
}

#[test]
fn valid_field_replaces_cache_control_and_expires() {
    let no_store = CacheControl { no_store: true, ..Default::default() };
    let cases: [(&str, &str, CacheControl, bool); 6] = [
        ("§2.2", "max-age=5", max_age(5).unwrap(), true),
        ("§2.2 unknown directive", "foo", CacheControl::default(), true),
        ("§2.2 invalid", "max-age=5, &", no_store.clone(), false),
        ("§2.2 wrong type", "max-age=\"5\"", no_store.clone(), false),
        ("§2.2 empty", "", no_store.clone(), false),
        ("§2.2 capitals", "Max-Age=5", no_store, false),
    ];
    for (rule, line, directives, targeted) in cases {
        let mut headers = map(&[line]);
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        assert_eq!(Policy::of_response(&headers), Policy { directives, targeted }, "RFC 9213 {rule}: {line}");
    }
}
