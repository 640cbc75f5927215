//! Tests of conditional requests.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::super::fixtures_tests::headers;
use super::*;

/// Sat, 01 Jan 2000 00:00:00 GMT.
const T0: &str = "Sat, 01 Jan 2000 00:00:00 GMT";
/// A second later.
const T1: &str = "Sat, 01 Jan 2000 00:00:01 GMT";
/// An hour later.
const T2: &str = "Sat, 01 Jan 2000 01:00:00 GMT";

fn outcome(method: &Method, status: u16, request: &[(&str, &str)], stored: &[(&str, &str)]) -> Outcome {
    let stored = headers(stored);
    evaluate(method, &headers(request), &response(status, &stored))
}

/// A response that arrived at T2.
fn response(status: u16, headers: &HeaderMap) -> StoredResponse<'_> {
    let status = StatusCode::from_u16(status).unwrap();
    StoredResponse { status, headers, response_time: UNIX_EPOCH + Duration::from_secs(946_688_400) }
}

type Lines<'a> = &'a [(&'a str, &'a str)];

/// Checks which requests with GET get a 304 for a 200.
fn check(cases: &[(Lines<'_>, Lines<'_>, bool, &str)]) {
    for (request, stored, not_modified, section) in cases {
        let expected = if *not_modified { Outcome::NotModified } else { Outcome::Full };
        assert_eq!(outcome(&Method::GET, 200, request, stored), expected, "{request:?} {stored:?} {section}");
    }
}

#[test]
fn if_none_match_gets_304_if_a_member_matches_weakly() {
    let strong: Lines<'_> = &[("etag", "\"abc\"")];
    let weak: Lines<'_> = &[("etag", "W/\"abc\"")];
    let inm = "if-none-match";
    check(&[
        (&[], strong, false, "RFC 9110 §13.1.2: no condition"),
        (&[(inm, "\"abc\"")], strong, true, "RFC 9111 §4.3.2"),
        (&[(inm, "\"abd\"")], strong, false, "RFC 9111 §4.3.2"),
        (&[(inm, "\"ABC\"")], strong, false, "RFC 9110 §8.8.3.2"),
        (&[(inm, "W/\"abc\"")], strong, true, "RFC 9110 §13.1.2: weak comparison"),
        (&[(inm, "\"abc\"")], weak, true, "RFC 9110 §13.1.2: weak comparison"),
        (&[(inm, "W/\"abc\"")], weak, true, "RFC 9110 §13.1.2: weak comparison"),
        (&[(inm, "\"abc\", \"1\", \"2\"")], strong, true, "RFC 9110 §13.1.2: first of a list"),
        (&[(inm, "\"1\",\"abc\",\"2\"")], strong, true, "RFC 9110 §13.1.2: in a list"),
        (&[(inm, "\"1\" , \"2\" , \"abc\"")], strong, true, "RFC 9110 §13.1.2: last of a list"),
        (&[(inm, "\"1\""), (inm, "\"abc\"")], strong, true, "RFC 9110 §5.3: several lines"),
        (&[(inm, "\"1\""), (inm, "\"2\"")], strong, false, "RFC 9110 §5.3: several lines"),
        (&[(inm, "*")], strong, true, "RFC 9110 §13.1.2"),
        (&[(inm, " * ")], strong, true, "RFC 9110 §13.1.2"),
        (&[(inm, "*")], &[], true, "RFC 9110 §13.1.2: any current representation"),
        (&[(inm, "*, \"1\"")], strong, false, "RFC 9110 §13.1.2: invalid"),
        (&[(inm, "*"), (inm, "\"1\"")], strong, false, "RFC 9110 §13.1.2: invalid"),
        (&[(inm, "\"abc\"")], &[], false, "RFC 9111 §4.3.2: no stored ETag"),
        (&[(inm, "\"a,b\"")], &[("etag", "\"a,b\"")], true, "RFC 9110 §8.8.3: a comma in an entity tag"),
        (&[(inm, "\"abcü\"")], &[("etag", "\"abcü\"")], true, "RFC 9110 §8.8.3: obs-text"),
        (&[(inm, "abc")], strong, true, "a tag without quotes matches the same text"),
        (&[(inm, "abcd")], strong, false, "a tag without quotes matches the same text"),
        (&[(inm, "abc")], &[("etag", "abc")], true, "the same bytes, though invalid"),
        (&[(inm, "\"abc\"")], &[("etag", "abc")], true, "a tag without quotes matches the same text"),
        (&[(inm, "w/\"abc\"")], &[("etag", "w/\"abc\"")], true, "the same bytes, though invalid"),
        (&[(inm, "w/\"abc\"")], weak, false, "RFC 9110 §8.8.3: W is case-sensitive"),
        (&[(inm, "x, \"abc\"")], strong, true, "a malformed member does not hide others"),
        (&[(inm, "\"x, \"abc\"")], strong, true, "a malformed member does not hide others"),
        (&[(inm, "")], strong, false, "RFC 9110 §13.1.2: an empty list"),
    ]);
}

#[test]
fn if_modified_since_gets_304_if_the_response_is_not_newer() {
    let ims = "if-modified-since";
    let at_t1: Lines<'_> = &[("last-modified", T1)];
    check(&[
        (&[(ims, T1)], at_t1, true, "RFC 9110 §13.1.3: the same"),
        (&[(ims, T2)], at_t1, true, "RFC 9110 §13.1.3: later"),
        (&[(ims, T0)], at_t1, false, "RFC 9110 §13.1.3: earlier"),
        (&[(ims, "Saturday, 01-Jan-00 00:00:01 GMT")], at_t1, true, "RFC 9110 §5.6.7: rfc850-date"),
        (&[(ims, "Sat Jan  1 00:00:01 2000")], at_t1, true, "RFC 9110 §5.6.7: asctime-date"),
        (&[(ims, "sat, 01 jan 2000 00:00:01 gmt")], at_t1, true, "RFC 9111 §4.2: any case"),
        (
            &[(ims, "Friday, 01-Jan-60 00:00:01 GMT")],
            at_t1,
            false,
            "RFC 9110 §5.6.7: 1960, more than 50 years before 2060",
        ),
        (&[(ims, "0")], at_t1, false, "RFC 9110 §13.1.3: not a date"),
        (&[(ims, "")], at_t1, false, "RFC 9110 §13.1.3: not a date"),
        (&[(ims, "Sat, 01 Jan 2000 00:00:01")], at_t1, false, "RFC 9110 §13.1.3: not a date"),
        (&[(ims, "Sat, 32 Jan 2000 00:00:01 GMT")], at_t1, false, "RFC 9110 §13.1.3: not a date"),
        (&[(ims, T2), (ims, T2)], at_t1, false, "RFC 9110 §5.3: more than one"),
        (&[(ims, T2)], &[("last-modified", "x")], false, "an unreadable Last-Modified"),
        (&[(ims, T2)], &[("last-modified", "x"), ("date", T0)], false, "an unreadable Last-Modified"),
        (&[(ims, T1)], &[("date", T1)], true, "RFC 9111 §4.3.2: Date"),
        (&[(ims, T1)], &[("date", T2)], false, "RFC 9111 §4.3.2: Date"),
        (&[(ims, T1)], &[("date", T0)], true, "RFC 9111 §4.3.2: Date"),
        (&[(ims, T2)], &[], true, "RFC 9111 §4.3.2: response time"),
        (&[(ims, T1)], &[], false, "RFC 9111 §4.3.2: response time"),
        (&[(ims, T1)], &[("date", "x")], false, "RFC 9111 §4.3.2: response time"),
    ]);
}

#[test]
fn if_none_match_takes_precedence_over_if_modified_since() {
    let stored: Lines<'_> = &[("etag", "\"a\""), ("last-modified", T1)];
    check(&[
        (&[("if-none-match", "\"a\""), ("if-modified-since", T0)], stored, true, "RFC 9110 §13.2.2"),
        (&[("if-none-match", "\"b\""), ("if-modified-since", T2)], stored, false, "RFC 9110 §13.1.3"),
        (&[("if-none-match", "x"), ("if-modified-since", T2)], stored, false, "RFC 9110 §13.1.3"),
        (&[("if-none-match", "\"a\""), ("if-modified-since", T2)], &[("last-modified", T1)], false, "RFC 9110 §13.1.3"),
    ]);
}

#[test]
fn conditions_apply_only_to_get_and_head_and_successful_responses() {
    let stored: Lines<'_> = &[("etag", "\"a\""), ("last-modified", T0)];
    // Method, status, outcome, section.
    let cases = [
        (Method::GET, 200, Outcome::NotModified, "RFC 9110 §13.1.2"),
        (Method::HEAD, 200, Outcome::NotModified, "RFC 9110 §13.1.2"),
        (Method::GET, 203, Outcome::NotModified, "RFC 9110 §13.2.1"),
        (Method::GET, 204, Outcome::NotModified, "RFC 9110 §13.2.1"),
        (Method::POST, 200, Outcome::Full, "RFC 9111 §4.3.2"),
        (Method::OPTIONS, 200, Outcome::Full, "RFC 9110 §13.2.1"),
        (Method::GET, 301, Outcome::Full, "RFC 9110 §13.2.1"),
        (Method::GET, 404, Outcome::Full, "RFC 9110 §13.2.1"),
        (Method::GET, 500, Outcome::Full, "RFC 9110 §13.2.1"),
    ];
    for (method, status, expected, section) in cases {
        for condition in [("if-none-match", "\"a\""), ("if-modified-since", T1)] {
            assert_eq!(outcome(&method, status, &[condition], stored), expected, "{method} {status} {section}");
        }
    }
}

#[test]
fn only_the_origin_evaluates_if_match_and_if_unmodified_since() {
    // Request, whether it is forwarded (RFC 9111 §4.3.2).
    let cases: &[(Lines<'_>, bool)] = &[
        (&[], false),
        (&[("if-match", "*")], true),
        (&[("if-match", "\"a\"")], true),
        (&[("if-unmodified-since", T0)], true),
        (&[("if-unmodified-since", "x")], true),
        (&[("if-none-match", "*"), ("if-modified-since", T0), ("if-range", "\"a\"")], false),
    ];
    for (request, expected) in cases {
        assert_eq!(must_forward(&headers(request)), *expected, "{request:?}");
    }
}

#[test]
fn range_applies_if_if_range_is_missing_or_a_strong_match() {
    let range = ("range", "bytes=0-1");
    let stored: Lines<'_> = &[("etag", "\"a\""), ("last-modified", T0), ("date", T1)];
    // Fields besides Range, stored fields, whether Range applies, section.
    let cases: &[(Lines<'_>, Lines<'_>, bool, &str)] = &[
        (&[], stored, true, "RFC 9110 §14.2"),
        (&[("if-range", "\"a\"")], stored, true, "RFC 9110 §13.1.5"),
        (&[("if-range", "\"b\"")], stored, false, "RFC 9110 §13.1.5"),
        (&[("if-range", "W/\"a\"")], stored, false, "RFC 9110 §13.1.5: strong comparison"),
        (&[("if-range", "W/\"a\"")], &[("etag", "W/\"a\"")], false, "RFC 9110 §13.1.5: strong comparison"),
        (&[("if-range", "\"a\"")], &[("etag", "W/\"a\"")], false, "RFC 9110 §13.1.5: strong comparison"),
        (&[("if-range", "a")], &[("etag", "a")], false, "RFC 9110 §8.8.3: invalid"),
        (&[("if-range", "\"a\", \"b\"")], stored, false, "RFC 9110 §13.1.5: no list"),
        (&[("if-range", "*")], stored, false, "RFC 9110 §13.1.5: no asterisk"),
        (&[("if-range", "")], stored, false, "RFC 9110 §13.1.5"),
        (&[("if-range", "\"a\""), ("if-range", "\"a\"")], stored, false, "RFC 9110 §5.3"),
        (&[("if-range", "\"a\"")], &[("last-modified", T0), ("date", T1)], false, "RFC 9110 §13.1.5"),
        (&[("if-range", T0)], stored, true, "RFC 9110 §13.1.5"),
        (&[("if-range", "sat, 01 jan 2000 00:00:00 gmt")], stored, true, "RFC 9111 §4.2: any case"),
        (&[("if-range", T1)], stored, false, "RFC 9110 §13.1.5: later is not exact"),
        (&[("if-range", T0)], &[("last-modified", T1), ("date", T2)], false, "RFC 9110 §13.1.5: earlier"),
        (&[("if-range", T0)], &[("last-modified", T0), ("date", T0)], false, "RFC 9110 §8.8.2.2: not strong"),
        (&[("if-range", T0)], &[("last-modified", T0)], false, "RFC 9110 §8.8.2.2: no Date"),
        (&[("if-range", T0)], &[("etag", "\"a\""), ("date", T2)], false, "RFC 9110 §13.1.5: no Last-Modified"),
    ];
    for (fields, stored, expected, section) in cases {
        let mut request = headers(fields);
        request.insert(range.0, HeaderValue::from_static(range.1));
        let applies = range_applies(&Method::GET, &request, &response(200, &headers(stored)));
        assert_eq!(applies, *expected, "{fields:?} {stored:?} {section}");
    }
    let stored = headers(stored);
    let stored = response(200, &stored);
    assert!(!range_applies(&Method::GET, &headers(&[("if-range", "\"a\"")]), &stored), "no Range");
    for method in [Method::HEAD, Method::POST] {
        assert!(!range_applies(&method, &headers(&[range]), &stored), "RFC 9110 §14.2: only GET");
    }
}

#[test]
fn header_of_a_304_guides_caches_and_has_no_other_metadata() {
    let stored = headers(&[
        ("content-type", "text/plain"),
        ("content-length", "5"),
        ("content-encoding", "gzip"),
        ("content-language", "de"),
        ("content-location", "/a"),
        ("date", T1),
        ("etag", "\"a\""),
        ("last-modified", T0),
        ("vary", "a"),
        ("vary", "b"),
        ("cache-control", "max-age=1"),
        ("cdn-cache-control", "max-age=2"),
        ("expires", T2),
        ("x-other", "1"),
        ("server", "x"),
    ]);
    let header = not_modified(&stored);
    // RFC 9110 §15.4.5.
    let expected = headers(&[
        ("content-location", "/a"),
        ("date", T1),
        ("etag", "\"a\""),
        ("vary", "a"),
        ("vary", "b"),
        ("cache-control", "max-age=1"),
        ("cdn-cache-control", "max-age=2"),
        ("expires", T2),
    ]);
    assert_eq!(header, expected);
    let without_tag = headers(&[("last-modified", T0), ("content-type", "text/plain")]);
    assert_eq!(not_modified(&without_tag), headers(&[("last-modified", T0)]), "RFC 9110 §15.4.5");
}

#[test]
fn validation_request_has_the_stored_validators_as_they_are() {
    // Stored fields, fields of the request (RFC 9111 §4.3.1).
    let cases: &[(Lines<'_>, Lines<'_>)] = &[
        (&[], &[]),
        (&[("etag", "\"a\"")], &[("if-none-match", "\"a\"")]),
        (&[("etag", "W/\"a\"")], &[("if-none-match", "W/\"a\"")]),
        (&[("etag", "a")], &[("if-none-match", "a")]),
        (&[("etag", "\"ü\"")], &[("if-none-match", "\"ü\"")]),
        (&[("etag", "")], &[]),
        (&[("last-modified", T0)], &[("if-modified-since", T0)]),
        (
            &[("last-modified", "Saturday, 01-Jan-00 00:00:00 GMT")],
            &[("if-modified-since", "Saturday, 01-Jan-00 00:00:00 GMT")],
        ),
        (&[("etag", "\"a\""), ("last-modified", T0)], &[("if-none-match", "\"a\""), ("if-modified-since", T0)]),
        (&[("etag", "\"a\""), ("etag", "\"b\"")], &[]),
        (&[("date", T0)], &[]),
    ];
    for (stored, expected) in cases {
        let found: HeaderMap = validators(&headers(stored)).into_iter().collect();
        assert_eq!(found, headers(expected), "{stored:?}");
    }
}
