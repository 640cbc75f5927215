//! Tests of what is stored.

use std::time::SystemTime;

use super::super::fixtures_tests::{headers as map, rules};
use super::super::vary::MAX_NAMES;
use super::*;

type Fields<'a> = &'a [(&'a str, &'a str)];

fn judge_with(
    rules: &Rules,
    method: &Method,
    request: Fields<'_>,
    status: u16,
    response: Fields<'_>,
) -> Result<Storable, Refusal> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_824_000);
    let times = Times { request: now, response: now };
    let request = map(request);
    let facts = RequestFacts { method, headers: &request };
    judge(&facts, StatusCode::from_u16(status).unwrap(), &map(response), rules, times)
}

fn refusal(request: Fields<'_>, status: u16, response: Fields<'_>) -> Option<Refusal> {
    judge_with(&rules(), &Method::GET, request, status, response).err()
}

fn control(value: &str) -> [(&str, &str); 1] {
    [("cache-control", value)]
}

#[test]
fn only_responses_to_get_are_stored() {
    let cases = [
        (Method::GET, None),
        (Method::HEAD, Some(Refusal::Method)),
        (Method::POST, Some(Refusal::Method)),
        (Method::PUT, Some(Refusal::Method)),
        (Method::DELETE, Some(Refusal::Method)),
        (Method::OPTIONS, Some(Refusal::Method)),
        (Method::from_bytes(b"get").unwrap(), Some(Refusal::Method)),
    ];
    for (method, expected) in cases {
        let result = judge_with(&rules(), &method, &[], 200, &control("max-age=60"));
        assert_eq!(result.err(), expected, "§3: {method}");
    }
}

#[test]
fn every_final_status_with_a_lifetime_is_stored_except_206_and_304() {
    let stored =
        [200, 201, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 416, 499, 500, 502, 503, 504, 599, 999];
    for status in stored {
        assert_eq!(refusal(&[], status, &control("max-age=60")), None, "§3: {status}");
    }
    let refused = [
        (100, Refusal::InterimStatus),
        (103, Refusal::InterimStatus),
        (206, Refusal::PartialContent),
        (304, Refusal::NotModified),
    ];
    for (status, expected) in refused {
        assert_eq!(refusal(&[], status, &control("max-age=60")), Some(expected), "§3: {status}");
    }
}

#[test]
fn must_understand_replaces_no_store_for_statuses_of_rfc_9110() {
    let cases = [
        (200, "max-age=60, must-understand", None),
        (200, "max-age=60, must-understand, no-store", None),
        (404, "no-store, must-understand, max-age=60", None),
        (505, "max-age=60, must-understand", None),
        (299, "max-age=60, must-understand", Some(Refusal::StatusNotUnderstood)),
        (306, "max-age=60, must-understand", Some(Refusal::StatusNotUnderstood)),
        (599, "max-age=60, must-understand", Some(Refusal::StatusNotUnderstood)),
        (599, "max-age=60, must-understand, no-store", Some(Refusal::StatusNotUnderstood)),
        (599, "max-age=60", None),
        (200, "max-age=60, must-understand, private", Some(Refusal::Private)),
    ];
    for (status, value, expected) in cases {
        assert_eq!(refusal(&[], status, &control(value)), expected, "§5.2.2.3: {status} {value}");
    }
}

#[test]
fn directives_of_the_response_that_forbid_storing_are_respected() {
    let cases: [(&str, Fields<'_>, Option<Refusal>); 13] = [
        ("§5.2.2.5", &[("cache-control", "no-store")], Some(Refusal::NoStore)),
        ("§5.2.2.5", &[("cache-control", "No-StOrE, max-age=60")], Some(Refusal::NoStore)),
        ("§5.2.2.5", &[("cache-control", "max-age=60"), ("cache-control", "no-store")], Some(Refusal::NoStore)),
        ("§5.2.2.5", &[("cache-control", "no-store=1, max-age=60")], Some(Refusal::NoStore)),
        ("§5.2 quoted string", &[("cache-control", "a=\"no-store\", max-age=60")], None),
        ("§5.2 open string", &[("cache-control", "max-age=60, a=\"b, no-store")], Some(Refusal::NoStore)),
        ("§5.2.2.7", &[("cache-control", "private, max-age=60")], Some(Refusal::Private)),
        ("§5.2.2.7", &[("cache-control", "s-maxage=60, private")], Some(Refusal::Private)),
        ("§5.2.2.7 invalid names", &[("cache-control", "private=\"a b\", max-age=60")], Some(Refusal::Private)),
        ("RFC 9213", &[("cache-control", "max-age=60"), ("cdn-cache-control", "no-store")], Some(Refusal::NoStore)),
        ("RFC 9213", &[("cache-control", "max-age=60"), ("cdn-cache-control", "private")], Some(Refusal::Private)),
        ("RFC 9213", &[("cache-control", "no-store"), ("cdn-cache-control", "max-age=60")], None),
        ("RFC 9213", &[("cache-control", "no-store"), ("cdn-cache-control", "max-age=60, &")], Some(Refusal::NoStore)),
    ];
    for (rule, response, expected) in cases {
        assert_eq!(refusal(&[], 200, response), expected, "{rule}: {response:?}");
    }
}

#[test]
fn no_store_of_a_request_counts_only_with_client_directives() {
    let request = control("no-store");
    assert_eq!(refusal(&request, 200, &control("max-age=60")), Some(Refusal::RequestNoStore), "§5.2.1.5");
    let rules = Rules { client_directives: false, ..rules() };
    assert!(judge_with(&rules, &Method::GET, &request, 200, &control("max-age=60")).is_ok(), "§5.2.1.5");
}

#[test]
fn response_to_a_request_with_authorization_needs_a_permission() {
    let cases = [
        ("max-age=60", Some(Refusal::Authorization)),
        ("max-age=60, proxy-revalidate", Some(Refusal::Authorization)),
        ("max-age=60, must-revalidate", None),
        ("max-age=60, public", None),
        ("s-maxage=60", None),
        ("max-age=60, public =", Some(Refusal::Authorization)),
        ("max-age=60, a=\"public\"", Some(Refusal::Authorization)),
    ];
    for (value, expected) in cases {
        assert_eq!(refusal(&[("authorization", "FOO")], 200, &control(value)), expected, "§3.5: {value}");
    }
    let expires: Fields<'_> = &[("expires", "Fri, 31 Dec 2049 00:00:00 GMT")];
    assert_eq!(refusal(&[("authorization", "FOO")], 200, expires), Some(Refusal::Authorization), "§3.5: Expires");
    assert_eq!(refusal(&[("cookie", "a=b")], 200, expires), None, "§3: Cookie of a request");
}

#[test]
fn set_cookie_is_stored_only_if_enabled_or_excluded_by_the_origin_and_never_kept() {
    let enabled = Rules { set_cookie: SetCookie::Strip, ..rules() };
    let cases = [
        ("max-age=60", Some(Refusal::SetCookie)),
        ("max-age=60, public", Some(Refusal::SetCookie)),
        ("max-age=60, no-cache=\"set-cookie\"", None),
        ("max-age=60, private=\"Set-Cookie\"", None),
        ("max-age=60, private=set-cookie", None),
    ];
    for (value, expected) in cases {
        let response = [("cache-control", value), ("set-cookie", "a=b"), ("set-cookie", "c=d")];
        let result = judge_with(&rules(), &Method::GET, &[], 200, &response);
        assert_eq!(result.as_ref().err().copied(), expected, "§5.2.2.7: {value}");
        let stored = judge_with(&enabled, &Method::GET, &[], 200, &response).unwrap();
        assert_eq!(stored.removed_fields, [SET_COOKIE], "{value}");
    }
}

#[test]
fn vary_that_no_later_request_can_match_is_refused() {
    let names = |count: usize| (1..count).map(|number| format!("x-{number}")).collect::<Vec<_>>().join(",");
    let (most, more) = (names(MAX_NAMES), names(MAX_NAMES + 1));
    let cases = [
        (most.as_str(), None),
        (more.as_str(), Some(Refusal::VaryAny)),
        ("a b", Some(Refusal::VaryAny)),
        ("*", Some(Refusal::VaryAny)),
        ("a, *", Some(Refusal::VaryAny)),
        ("* , a", Some(Refusal::VaryAny)),
        ("a", None),
        ("a*", None),
        ("", None),
    ];
    for (value, expected) in cases {
        let response = [("cache-control", "max-age=60"), ("vary", "b"), ("vary", value)];
        assert_eq!(refusal(&[], 200, &response), expected, "§4.1: {value}");
    }
}

#[test]
fn content_length_above_the_limit_is_refused() {
    for (value, expected) in [("1000", None), ("1001", Some(Refusal::TooLarge)), ("x", None), ("0", None)] {
        let response = [("cache-control", "max-age=60"), ("content-length", value)];
        assert_eq!(refusal(&[], 200, &response), expected, "max_object_size: {value}");
    }
}

#[test]
fn response_needs_a_lifetime_or_a_use_without_one() {
    let etag = ("etag", "\"a\"");
    let modified = ("last-modified", "Fri, 27 Nov 2026 00:00:00 GMT");
    let cc = |value| ("cache-control", value);
    type Case<'a> = (&'a str, u16, Vec<(&'a str, &'a str)>, Option<Refusal>);
    let cases: Vec<Case<'_>> = vec![
        ("§3 nothing", 200, vec![], Some(Refusal::NoLifetime)),
        ("§3 only a validator", 200, vec![etag], Some(Refusal::NoLifetime)),
        ("§3 only a validator", 200, vec![modified], Some(Refusal::NoLifetime)),
        ("§3 public and a validator", 200, vec![cc("public"), etag], None),
        ("§3 public", 200, vec![cc("public")], Some(Refusal::NoValidator)),
        ("§4.3 lifetime 0", 200, vec![cc("max-age=0")], Some(Refusal::NoValidator)),
        ("§4.3 lifetime 0 and a validator", 200, vec![cc("max-age=0"), etag], None),
        ("§4.3 lifetime 0 and a validator", 200, vec![cc("max-age=0"), modified], None),
        ("§4.3 invalid Expires", 200, vec![("expires", "0")], Some(Refusal::NoValidator)),
        ("§4.3 invalid Expires and a validator", 200, vec![("expires", "0"), modified], None),
        ("§5.2.2.4", 200, vec![cc("no-cache"), etag], None),
        ("§5.2.2.4", 200, vec![cc("no-cache, max-age=60")], Some(Refusal::NoValidator)),
        ("§5.2.2.4 other status", 403, vec![cc("no-cache"), etag], Some(Refusal::NoLifetime)),
        ("§5.2.2.4 other status", 403, vec![cc("no-cache, max-age=60"), etag], None),
        ("§5.2.2.4 other status", 403, vec![cc("no-cache, public"), etag], None),
        ("§3 RFC 9110 §15.1", 301, vec![cc("no-cache"), etag], None),
        ("RFC 5861 §3", 200, vec![cc("max-age=0, stale-while-revalidate=60")], None),
        ("RFC 5861 §4", 200, vec![cc("max-age=0, stale-if-error=60")], None),
        ("§4.2.4", 200, vec![cc("max-age=0, stale-if-error=60, must-revalidate")], Some(Refusal::NoValidator)),
        ("§4.2.4", 200, vec![cc("no-cache, stale-while-revalidate=60")], Some(Refusal::NoValidator)),
        ("§4.2.3 old on arrival", 200, vec![cc("max-age=60"), ("age", "90")], None),
        (
            "RFC 9213",
            200,
            vec![("expires", "Fri, 31 Dec 2049 00:00:00 GMT"), ("cdn-cache-control", "a")],
            Some(Refusal::NoLifetime),
        ),
    ];
    for (rule, status, response, expected) in cases {
        assert_eq!(refusal(&[], status, &response), expected, "{rule}: {status} {response:?}");
    }
}

#[test]
fn settings_of_the_route_give_a_lifetime() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let rules = Rules { default_ttl: seconds(60), negative_ttl: seconds(5), ..rules() };
    for (status, expected) in [(200, None), (404, None), (403, Some(Refusal::NoLifetime))] {
        assert_eq!(judge_with(&rules, &Method::GET, &[], status, &[]).err(), expected, "§4.2.2: {status}");
    }
}

#[test]
fn stale_windows_are_those_of_the_response_then_of_the_route() {
    let plain = rules();
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let route = Rules { stale_while_revalidate: seconds(7), stale_if_error: seconds(9), ..rules() };
    // Rule, settings, Cache-Control, (must revalidate, seconds while revalidating, seconds on error).
    type Windows<'a> = (&'a str, &'a Rules, &'a str, (bool, u32, u32));
    let cases: [Windows<'_>; 14] = [
        ("RFC 5861", &plain, "max-age=60", (false, 0, 0)),
        ("RFC 5861 §3", &plain, "max-age=60, stale-while-revalidate=5", (false, 5, 0)),
        ("RFC 5861 §4", &plain, "max-age=60, stale-if-error=5", (false, 0, 5)),
        ("RFC 5861", &route, "max-age=60", (false, 7, 9)),
        ("RFC 5861", &route, "max-age=60, stale-while-revalidate=5, stale-if-error=0", (false, 5, 0)),
        ("RFC 5861 invalid", &route, "max-age=60, stale-while-revalidate=x, stale-if-error", (false, 0, 0)),
        ("§1.2.2", &plain, "max-age=60, stale-if-error=99999999999", (false, 0, 1 << 31)),
        ("§5.2.2.2", &route, "max-age=60, must-revalidate, stale-if-error=5", (true, 0, 0)),
        ("§5.2.2.8", &route, "max-age=60, proxy-revalidate", (true, 0, 0)),
        ("§5.2.2.10", &route, "s-maxage=60, stale-while-revalidate=5", (true, 0, 0)),
        ("§5.2.2.4", &route, "max-age=60, no-cache", (true, 0, 0)),
        ("§5.2.2.4", &route, "max-age=60, no-cache=\"a\"", (false, 7, 9)),
        ("lifetime 0, route", &route, "max-age=0", (false, 0, 0)),
        ("lifetime 0, response", &route, "max-age=0, stale-while-revalidate=5", (false, 5, 0)),
    ];
    for (rule, rules, value, expected) in cases {
        let stored = judge_with(rules, &Method::GET, &[], 200, &[("cache-control", value), ("etag", "\"a\"")]).unwrap();
        let found = (stored.must_revalidate, stored.stale_while_revalidate, stored.stale_if_error);
        assert_eq!(found, expected, "{rule}: {value}");
    }
}

#[test]
fn stored_copy_omits_fields_of_the_connection_and_restricted_ones() {
    let cases: [(&str, Fields<'_>, &[&str]); 13] = [
        ("§3.1", &[("x-a", "1"), ("content-type", "text/plain")], &[]),
        ("§3.1", &[("connection", "a, B"), ("a", "1"), ("b", "2"), ("c", "3")], &["connection", "a", "b"]),
        ("§3.1", &[("connection", "a"), ("connection", "b,a"), ("a", "1"), ("b", "2")], &["connection", "a", "b"]),
        ("§3.1 absent field", &[("connection", "close, x")], &["connection"]),
        ("§3.1", &[("keep-alive", "timeout=5"), ("upgrade", "h2c")], &["keep-alive", "upgrade"]),
        ("§3.1", &[("transfer-encoding", "chunked"), ("te", "trailers")], &["te", "transfer-encoding"]),
        (
            "§3.1",
            &[("proxy-authenticate", "Basic"), ("proxy-authorization", "x")],
            &["proxy-authenticate", "proxy-authorization"],
        ),
        (
            "§3.1",
            &[("proxy-authentication-info", "x"), ("proxy-connection", "close")],
            &["proxy-connection", "proxy-authentication-info"],
        ),
        ("RFC 9110 §7.6.1", &[("connection", "cache-control, vary"), ("vary", "a")], &["connection"]),
        ("§5.2.2.4", &[("cache-control", "no-cache=\"a\""), ("a", "1"), ("b", "2")], &["a"]),
        ("§5.2.2.4", &[("cache-control", "no-cache=\"a, b\""), ("a", "1"), ("b", "2"), ("c", "3")], &["a", "b"]),
        ("§5.2.2.7", &[("cache-control", "private=\"a\", no-cache=\"b, a\""), ("a", "1"), ("b", "2")], &["a", "b"]),
        ("RFC 9213", &[("cdn-cache-control", "max-age=60, private=\"a\""), ("a", "1")], &["a"]),
    ];
    for (rule, fields, expected) in cases {
        let response = [fields, &[("cache-control", "max-age=60")]].concat();
        let stored = judge_with(&rules(), &Method::GET, &[], 200, &response).unwrap();
        assert_eq!(stored.removed_fields, expected, "{rule}: {fields:?}");
    }
}

#[test]
fn each_refusal_has_its_own_name() {
    let all = [
        Refusal::Method,
        Refusal::InterimStatus,
        Refusal::PartialContent,
        Refusal::NotModified,
        Refusal::StatusNotUnderstood,
        Refusal::RequestNoStore,
        Refusal::NoStore,
        Refusal::Private,
        Refusal::Authorization,
        Refusal::SetCookie,
        Refusal::VaryAny,
        Refusal::TooLarge,
        Refusal::NoLifetime,
        Refusal::NoValidator,
    ];
    let names: std::collections::BTreeSet<_> = all.iter().map(|refusal| refusal.as_str()).collect();
    assert_eq!(names.len(), all.len());
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
}
