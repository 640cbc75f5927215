//! Tests of updates by 304 and HEAD responses.

use http::header::SET_COOKIE;
use http::{HeaderName, StatusCode};

use super::super::fixtures_tests::headers;
use super::*;

/// Times of Last-Modified and Date.
const T0: &str = "Sat, 01 Jan 2000 00:00:00 GMT";
const T1: &str = "Sat, 01 Jan 2000 00:00:01 GMT";

type Lines<'a> = &'a [(&'a str, &'a str)];

#[test]
fn response_with_304_selects_the_stored_response_with_its_validators() {
    let strong: Lines<'_> = &[("etag", "\"a\""), ("last-modified", T0)];
    // Stored fields, fields of the 304, whether it is about the stored response, section.
    let cases: &[(Lines<'_>, Lines<'_>, bool, &str)] = &[
        (strong, &[("etag", "\"a\"")], true, "RFC 9111 §4.3.4: strong"),
        (strong, &[("etag", "\"b\"")], false, "RFC 9111 §4.3.4: another strong validator"),
        (strong, &[("etag", "\"b\""), ("last-modified", T0)], false, "RFC 9111 §4.3.4: ETags decide"),
        (strong, &[("etag", "\"a\""), ("last-modified", T1)], true, "RFC 9111 §4.3.4: one strong validator"),
        (strong, &[("etag", "W/\"a\"")], true, "RFC 9111 §4.3.4: weak"),
        (strong, &[("etag", "W/\"b\"")], false, "RFC 9111 §4.3.4: weak"),
        (&[("etag", "W/\"a\"")], &[("etag", "W/\"a\"")], true, "RFC 9111 §4.3.4: weak"),
        (&[("etag", "W/\"a\"")], &[("etag", "\"a\"")], false, "RFC 9111 §4.3.4: strong, but not stored"),
        (&[("etag", "a")], &[("etag", "a")], true, "the same bytes, though invalid"),
        (&[("etag", "a")], &[("etag", "\"a\"")], false, "RFC 9111 §4.3.4: strong, but not stored"),
        (strong, &[("last-modified", T0)], true, "RFC 9111 §4.3.4: Last-Modified"),
        (strong, &[("last-modified", T1)], false, "RFC 9111 §4.3.4: another Last-Modified"),
        (&[("last-modified", T0)], &[("last-modified", T0)], true, "RFC 9111 §4.3.4: weak"),
        (
            &[("last-modified", T0)],
            &[("last-modified", "Saturday, 01-Jan-00 00:00:00 GMT")],
            true,
            "RFC 9110 §5.6.7: the same date",
        ),
        (
            &[("last-modified", T0)],
            &[("last-modified", "SAT, 01 JAN 2000 00:00:00 GMT")],
            true,
            "RFC 9111 §4.2: any case",
        ),
        (&[("last-modified", "x")], &[("last-modified", "x")], true, "the same bytes, though invalid"),
        (&[("last-modified", "x")], &[("last-modified", "y")], false, "RFC 9111 §4.3.4"),
        (&[("last-modified", T0)], &[("etag", "\"a\"")], false, "RFC 9111 §4.3.4: strong, but not stored"),
        (
            &[("last-modified", T0)],
            &[("etag", "\"a\""), ("last-modified", T0), ("date", T1)],
            true,
            "RFC 9111 §4.3.4: a strong Last-Modified",
        ),
        (
            &[("last-modified", T0)],
            &[("etag", "\"a\""), ("last-modified", T0), ("date", T0)],
            false,
            "RFC 9111 §4.3.4: strong, but not stored",
        ),
        (&[("last-modified", T0)], &[("etag", "W/\"a\""), ("last-modified", T0)], true, "RFC 9111 §4.3.4: weak"),
        (&[("last-modified", T0)], &[("etag", "W/\"a\"")], false, "RFC 9111 §4.3.4: weak, but not stored"),
        (strong, &[], true, "RFC 9111 §4.3.4: none, and the request named no other response"),
        (&[("last-modified", T0)], &[("date", T1)], true, "RFC 9111 §4.3.4: none"),
        (&[], &[], true, "RFC 9111 §4.3.4: none on both sides"),
        (&[], &[("last-modified", T0)], false, "RFC 9111 §4.3.4: weak, but not stored"),
    ];
    for (stored, fresh, expected, section) in cases {
        assert_eq!(
            selects(&headers(stored), &headers(fresh), SystemTime::now()),
            *expected,
            "{stored:?} {fresh:?} {section}"
        );
    }
}

#[test]
fn update_replaces_the_fields_that_the_304_has() {
    // Stored fields, fields of the 304, updated fields, section.
    let cases: &[(Lines<'_>, Lines<'_>, Lines<'_>, &str)] = &[
        (&[("x-a", "1")], &[], &[("x-a", "1")], "RFC 9111 §3.2: what the 304 lacks remains"),
        (&[("x-a", "1")], &[("x-a", "2")], &[("x-a", "2")], "RFC 9111 §3.2"),
        (&[], &[("x-a", "2")], &[("x-a", "2")], "RFC 9111 §3.2: a new field"),
        (
            &[("x-a", "1"), ("x-a", "2"), ("x-b", "3")],
            &[("x-a", "4")],
            &[("x-a", "4"), ("x-b", "3")],
            "RFC 9111 §3.2: all lines are replaced",
        ),
        (&[("x-a", "1")], &[("x-a", "2"), ("x-a", "3")], &[("x-a", "2"), ("x-a", "3")], "RFC 9111 §3.2: by all lines"),
        (
            &[("cache-control", "max-age=1"), ("expires", T0)],
            &[("cache-control", "max-age=3600")],
            &[("cache-control", "max-age=3600"), ("expires", T0)],
            "RFC 9111 §4.3.4",
        ),
        (&[("expires", T0)], &[("expires", T1)], &[("expires", T1)], "RFC 9111 §4.3.4"),
        (&[("date", T0)], &[("date", T1)], &[("date", T1)], "RFC 9111 §4.3.4"),
        (&[("content-location", "/a")], &[("content-location", "/b")], &[("content-location", "/b")], "RFC 9111 §3.2"),
        (
            &[("content-security-policy", "a")],
            &[("content-security-policy", "b")],
            &[("content-security-policy", "b")],
            "RFC 9111 §3.2",
        ),
        (
            &[("content-type", "text/plain")],
            &[("content-type", "text/plain;charset=utf-8")],
            &[("content-type", "text/plain;charset=utf-8")],
            "RFC 9111 §3.2",
        ),
        (&[("content-foo", "1")], &[("content-foo", "2")], &[("content-foo", "2")], "RFC 9111 §3.2"),
        (&[("etag", "\"a\"")], &[("etag", "W/\"a\"")], &[("etag", "\"a\"")], "a strong validator remains"),
        (&[], &[("etag", "\"a\"")], &[("etag", "\"a\"")], "RFC 9111 §3.2"),
        (&[("last-modified", T0)], &[("last-modified", T1)], &[("last-modified", T1)], "RFC 9111 §3.2"),
        (&[("age", "100")], &[], &[], "RFC 9111 §4.2.3: Age of the 304"),
        (&[("age", "100")], &[("age", "5")], &[("age", "5")], "RFC 9111 §4.2.3: Age of the 304"),
        (&[("x-a", "1")], &[("x-a", "")], &[("x-a", "")], "RFC 9111 §3.2: an empty value"),
    ];
    for (stored, fresh, expected, section) in cases {
        let mut updated = headers(stored);
        update_from_304(&mut updated, &headers(fresh), &[]);
        assert_eq!(updated, headers(expected), "{stored:?} {fresh:?} {section}");
    }
}

#[test]
fn update_keeps_fields_of_the_body_and_the_connection() {
    // Name, section.
    let cases = [
        ("content-length", "RFC 9111 §3.2"),
        ("content-encoding", "RFC 9111 §3.2"),
        ("content-range", "RFC 9111 §3.2"),
        ("content-md5", "RFC 9111 §3.2"),
        ("content-digest", "RFC 9530 §2"),
        ("connection", "RFC 9111 §3.1"),
        ("keep-alive", "RFC 9111 §3.1"),
        ("proxy-connection", "RFC 9111 §3.1"),
        ("te", "RFC 9111 §3.1"),
        ("trailer", "RFC 9110 §6.6.2"),
        ("transfer-encoding", "RFC 9111 §3.1"),
        ("upgrade", "RFC 9111 §3.1"),
        ("proxy-authenticate", "RFC 9111 §3.1"),
        ("proxy-authentication-info", "RFC 9111 §3.1"),
        ("proxy-authorization", "RFC 9111 §3.1"),
    ];
    for (name, section) in cases {
        for stored in [headers(&[]), headers(&[(name, "1")])] {
            let mut updated = stored.clone();
            update_from_304(&mut updated, &headers(&[(name, "2"), ("x-a", "1")]), &[]);
            assert_eq!(updated.get("x-a").unwrap(), "1");
            updated.remove("x-a");
            assert_eq!(updated, stored, "{name} {section}");
        }
    }
}

#[test]
fn update_omits_fields_that_connection_or_a_directive_names() {
    let fresh = headers(&[("connection", "a, b"), ("connection", "c"), ("a", "2"), ("b", "2"), ("c", "2"), ("d", "2")]);
    let mut stored = headers(&[("a", "1")]);
    update_from_304(&mut stored, &fresh, &[]);
    assert_eq!(stored, headers(&[("a", "1"), ("d", "2")]), "RFC 9111 §3.1");
    let mut stored = headers(&[("a", "1"), ("b", "1")]);
    update_from_304(&mut stored, &headers(&[("a", "2"), ("b", "2")]), &[HeaderName::from_static("a")]);
    assert_eq!(stored, headers(&[("b", "2")]), "RFC 9111 §5.2.2.4");
    let mut stored = headers(&[]);
    update_from_304(&mut stored, &headers(&[("set-cookie", "a=1"), ("set-cookie", "b=2")]), &[SET_COOKIE]);
    assert_eq!(stored, headers(&[]), "RFC 9111 §7.3");
    let mut stored = headers(&[("set-cookie", "a=0")]);
    update_from_304(&mut stored, &headers(&[("set-cookie", "a=1"), ("set-cookie", "b=2")]), &[]);
    assert_eq!(stored, headers(&[("set-cookie", "a=1"), ("set-cookie", "b=2")]), "RFC 9111 §3.2");
}

#[test]
fn head_response_freshens_only_a_response_with_the_same_validators_and_length() {
    let all: Lines<'_> = &[("etag", "\"a\""), ("last-modified", T0), ("content-length", "5")];
    // Stored fields, length of the stored body, status, fields of the response to HEAD, update, section.
    type Case<'a> = (Lines<'a>, Option<u64>, u16, Lines<'a>, HeadUpdate, &'a str);
    let cases: &[Case<'_>] = &[
        (all, Some(5), 200, all, HeadUpdate::Freshen, "RFC 9111 §4.3.5"),
        (all, Some(5), 200, &[], HeadUpdate::Freshen, "RFC 9111 §4.3.5: nothing contradicts"),
        (&[], Some(5), 200, &[("cache-control", "max-age=1")], HeadUpdate::Freshen, "RFC 9111 §4.3.5"),
        (all, Some(5), 200, &[("etag", "\"b\"")], HeadUpdate::Invalidate, "RFC 9111 §4.3.5"),
        (all, Some(5), 200, &[("etag", "W/\"a\"")], HeadUpdate::Invalidate, "RFC 9111 §4.3.5"),
        (&[("etag", "W/\"a\"")], None, 200, &[("etag", "W/\"a\"")], HeadUpdate::Freshen, "RFC 9111 §4.3.5"),
        (&[], None, 200, &[("etag", "\"a\"")], HeadUpdate::Invalidate, "RFC 9111 §4.3.5"),
        (all, Some(5), 200, &[("last-modified", T1)], HeadUpdate::Invalidate, "RFC 9111 §4.3.5"),
        (all, Some(5), 200, &[("etag", "\"a\""), ("last-modified", T1)], HeadUpdate::Invalidate, "RFC 9111 §4.3.5"),
        (&[], None, 200, &[("last-modified", T1)], HeadUpdate::Invalidate, "RFC 9111 §4.3.5"),
        (all, Some(5), 200, &[("content-length", "6")], HeadUpdate::Invalidate, "RFC 9111 §4.3.5"),
        (all, Some(5), 200, &[("etag", "\"a\""), ("content-length", "6")], HeadUpdate::Invalidate, "RFC 9111 §4.3.5"),
        (&[], Some(6), 200, &[("content-length", "6")], HeadUpdate::Freshen, "RFC 9111 §4.3.5: stored chunked"),
        (&[], None, 200, &[("content-length", "6")], HeadUpdate::Invalidate, "RFC 9111 §4.3.5: length unknown"),
        (all, Some(5), 200, &[("content-length", "x")], HeadUpdate::Invalidate, "RFC 9110 §8.6"),
        (all, Some(5), 204, all, HeadUpdate::Ignore, "RFC 9111 §4.3.5: only 200"),
        (all, Some(5), 304, all, HeadUpdate::Ignore, "RFC 9111 §4.3.5: only 200"),
        (all, Some(5), 404, &[], HeadUpdate::Ignore, "RFC 9111 §4.3.5: only 200"),
        (all, Some(5), 410, all, HeadUpdate::Ignore, "RFC 9111 §4.3.5: only 200"),
        (all, Some(5), 500, &[], HeadUpdate::Ignore, "RFC 9111 §4.3.5: only 200"),
    ];
    for (stored, length, status, head, expected, section) in cases {
        let status = StatusCode::from_u16(*status).unwrap();
        let update = update_from_head(&headers(stored), *length, status, &headers(head), SystemTime::now());
        assert_eq!(update, *expected, "{stored:?} {status} {head:?} {section}");
    }
}
