//! Tests of Cache-Status.

use super::*;

const HIT: CacheStatus<'_> = CacheStatus { outcome: Outcome::Hit, ttl: None, key: None, detail: None };

fn forwarded(reason: Forward, status: Option<u16>, stored: bool, collapsed: bool) -> CacheStatus<'static> {
    let status = status.map(|status| StatusCode::from_u16(status).unwrap());
    CacheStatus { outcome: Outcome::Forwarded { reason, status, stored, collapsed }, ..HIT }
}

#[test]
fn value_has_the_parameters_of_rfc_9211() {
    let cases: [(&str, CacheStatus<'_>, &str); 24] = [
        ("§2.1", HIT, "l7lb; hit"),
        ("§2.4", CacheStatus { ttl: Some(376), ..HIT }, "l7lb; hit; ttl=376"),
        ("§2.4", CacheStatus { ttl: Some(0), ..HIT }, "l7lb; hit; ttl=0"),
        ("§2.4 stale", CacheStatus { ttl: Some(-412), ..HIT }, "l7lb; hit; ttl=-412"),
        ("RFC 9651 §3.3.1", CacheStatus { ttl: Some(i64::MAX), ..HIT }, "l7lb; hit; ttl=999999999999999"),
        ("RFC 9651 §3.3.1", CacheStatus { ttl: Some(i64::MIN), ..HIT }, "l7lb; hit; ttl=-999999999999999"),
        ("§2.2", forwarded(Forward::Bypass, None, false, false), "l7lb; fwd=bypass"),
        ("§2.2", forwarded(Forward::Method, None, false, false), "l7lb; fwd=method"),
        ("§2.2", forwarded(Forward::UriMiss, None, false, false), "l7lb; fwd=uri-miss"),
        ("§2.2", forwarded(Forward::VaryMiss, None, false, false), "l7lb; fwd=vary-miss"),
        ("§2.2", forwarded(Forward::Miss, None, false, false), "l7lb; fwd=miss"),
        ("§2.2", forwarded(Forward::Request, None, false, false), "l7lb; fwd=request"),
        ("§2.2", forwarded(Forward::Stale, None, false, false), "l7lb; fwd=stale"),
        ("§2.2", forwarded(Forward::Partial, None, false, false), "l7lb; fwd=partial"),
        ("§2.3", forwarded(Forward::Stale, Some(304), false, false), "l7lb; fwd=stale; fwd-status=304"),
        ("§2.5", forwarded(Forward::UriMiss, None, true, false), "l7lb; fwd=uri-miss; stored"),
        ("§2.6", forwarded(Forward::UriMiss, None, false, true), "l7lb; fwd=uri-miss; collapsed"),
        ("§2", forwarded(Forward::Stale, Some(304), true, true), "l7lb; fwd=stale; fwd-status=304; stored; collapsed"),
        ("§2.7", CacheStatus { key: Some("https://a/b?c"), ..HIT }, "l7lb; hit; key=\"https://a/b?c\""),
        ("RFC 9651 §4.1.6", CacheStatus { key: Some("a\"b\\c"), ..HIT }, "l7lb; hit; key=\"a\\\"b\\\\c\""),
        ("RFC 9651 §3.3.3", CacheStatus { key: Some("\u{e9}\r\n\0"), ..HIT }, "l7lb; hit; key=\"%C3%A9%0D%0A%00\""),
        ("§2.8", CacheStatus { detail: Some("no_store"), ..HIT }, "l7lb; hit; detail=no_store"),
        ("§2.8", CacheStatus { detail: Some("is full, 1"), ..HIT }, "l7lb; hit; detail=\"is full, 1\""),
        ("§2.8", CacheStatus { detail: Some(""), ..HIT }, "l7lb; hit; detail=\"\""),
    ];
    for (rule, status, expected) in cases {
        assert_eq!(status.value(), expected, "{rule}: {status:?}");
    }
}

#[test]
fn own_member_follows_those_of_the_backend() {
    let mut headers = HeaderMap::new();
    HIT.append_to(&mut headers);
    assert_eq!(headers.get_all(CACHE_STATUS).iter().collect::<Vec<_>>(), ["l7lb; hit"], "RFC 9211 §2");
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_STATUS, HeaderValue::from_static("origin; hit, other; fwd=miss"));
    HIT.append_to(&mut headers);
    let lines: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
    assert_eq!(lines, ["origin; hit, other; fwd=miss", "l7lb; hit"], "RFC 9211 §2");
}

#[test]
fn value_is_a_valid_structured_field() {
    for key in ["a", "a\"b", "\u{fc}", "\t"] {
        let value = CacheStatus { key: Some(key), detail: Some("x y"), ..HIT }.value();
        assert!(value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)), "RFC 9651 §4.1: {value:?}");
    }
}
