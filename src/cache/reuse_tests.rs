//! Tests of the reuse of stored responses.

use http::{HeaderName, HeaderValue};

use super::super::fixtures_tests::rules;
use super::*;

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_824_000)
}

fn map(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !value.is_empty() {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// Judges a response with a lifetime of 100 s and windows of 10 s (revalidation) and 20 s (error) at an age.
fn at(age: u64, response: &str, request: &HeaderMap, rules: &Rules) -> Reuse {
    let headers = map("cache-control", response);
    let origin = CacheControl::of_response(&headers);
    let lifetime = if origin.needs_validation() { 0 } else { 100 };
    let window = |seconds| if origin.forbids_stale() { 0 } else { seconds };
    let stored = StoredFacts {
        headers: &headers,
        epoch: start(),
        fresh_until: start() + Duration::from_secs(lifetime),
        stale_while_revalidate: window(10),
        stale_if_error: window(20),
    };
    judge(&stored, request, rules, start() + Duration::from_secs(age))
}

/// A short form: `fresh`, `accepted`, or `stale` with the letters r (while revalidating), e (on error), m (must
/// revalidate), and the reason.
fn short(reuse: Reuse) -> String {
    match reuse {
        Reuse::Fresh { .. } => "fresh".to_owned(),
        Reuse::StaleAccepted { .. } => "accepted".to_owned(),
        Reuse::Stale { may_serve_while_revalidating, may_serve_on_error, must_revalidate, reason, .. } => {
            let letter = |set, letter| if set { letter } else { "-" };
            let letters = [
                letter(may_serve_while_revalidating, "r"),
                letter(may_serve_on_error, "e"),
                letter(must_revalidate, "m"),
            ];
            format!("stale {} {}", letters.concat(), reason.as_str())
        }
    }
}

/// Rule, age, Cache-Control of the response, Cache-Control of the request, expected.
type Case = (&'static str, u64, &'static str, &'static str, &'static str);

fn check(cases: &[Case]) {
    for (rule, age, response, request, expected) in cases {
        let found = short(at(*age, response, &map("cache-control", request), &rules()));
        assert_eq!(found, *expected, "{rule}: age {age}, response {response:?}, request {request:?}");
    }
}

#[test]
fn response_is_fresh_until_its_lifetime_ends_unless_it_has_no_cache() {
    check(&[
        ("§4.2", 0, "", "", "fresh"),
        ("§4.2", 99, "", "", "fresh"),
        ("§4.2 lifetime equals age", 100, "", "", "stale re- expired"),
        ("RFC 5861 §3", 110, "", "", "stale re- expired"),
        ("RFC 5861 §3 window over", 111, "", "", "stale -e- expired"),
        ("RFC 5861 §4", 120, "", "", "stale -e- expired"),
        ("RFC 5861 §4 window over", 121, "", "", "stale --- expired"),
        ("§5.2.2.2 fresh", 99, "must-revalidate", "", "fresh"),
        ("§5.2.2.2", 105, "must-revalidate", "", "stale --m expired"),
        ("§5.2.2.8", 105, "proxy-revalidate", "", "stale --m expired"),
        ("§5.2.2.10", 105, "s-maxage=100", "", "stale --m expired"),
        ("§5.2.2.10 fresh", 50, "s-maxage=100", "", "fresh"),
        ("§5.2.2.4", 0, "no-cache", "", "stale --m no_cache"),
        ("§5.2.2.4", 5, "no-cache, max-age=100", "", "stale --m no_cache"),
        ("§5.2.2.4 field names", 5, "no-cache=\"a\"", "", "fresh"),
        ("§5.2.2.4 field names", 105, "no-cache=\"a\"", "", "stale re- expired"),
        ("RFC 8246 §2", 5, "immutable", "", "fresh"),
        ("RFC 8246 §2 stale", 105, "immutable", "", "stale re- expired"),
    ]);
}

#[test]
fn directives_of_a_request_restrict_or_extend_reuse() {
    check(&[
        ("§5.2.1.1", 50, "", "max-age=60", "fresh"),
        ("§5.2.1.1", 60, "", "max-age=60", "fresh"),
        ("§5.2.1.1", 61, "", "max-age=60", "stale -e- request_max_age"),
        ("§5.2.1.1 zero", 0, "", "max-age=0", "stale -e- request_max_age"),
        ("§5.2.1.1 zero", 5, "", "max-age=0", "stale -e- request_max_age"),
        ("§5.2.1.1 invalid", 5, "", "max-age=x", "stale -e- request_max_age"),
        ("§5.2.1.1 fresh is not must-revalidate", 5, "must-revalidate", "max-age=0", "stale -e- request_max_age"),
        ("§5.2.1.1 wants no stale response", 105, "", "max-age=200", "stale -e- expired"),
        ("§5.2.1.1 with max-stale", 105, "", "max-age=200, max-stale", "accepted"),
        ("§5.2.1.1 too old with max-stale", 105, "", "max-age=60, max-stale", "stale -e- expired"),
        ("§5.2.1.3", 50, "", "min-fresh=50", "fresh"),
        ("§5.2.1.3", 51, "", "min-fresh=50", "stale -e- request_min_fresh"),
        ("§5.2.1.3 above the lifetime", 0, "", "min-fresh=101", "stale -e- request_min_fresh"),
        ("§5.2.1.3 zero", 99, "", "min-fresh=0", "fresh"),
        ("§5.2.1.3 stale", 105, "", "min-fresh=0", "stale -e- expired"),
        ("§5.2.1.3 stale with max-stale", 105, "", "min-fresh=1, max-stale", "stale -e- expired"),
        ("§5.2.1.3 invalid", 99, "", "min-fresh=x", "fresh"),
        ("§5.2.1.2", 105, "", "max-stale", "accepted"),
        ("§5.2.1.2", 9999, "", "max-stale", "accepted"),
        ("§5.2.1.2", 105, "", "max-stale=5", "accepted"),
        ("§5.2.1.2", 106, "", "max-stale=5", "stale re- expired"),
        ("§5.2.1.2 invalid", 106, "", "max-stale=x", "stale re- expired"),
        ("§5.2.1.2 fresh", 50, "", "max-stale=5", "fresh"),
        ("§4.2.4", 105, "must-revalidate", "max-stale", "stale --m expired"),
        ("§4.2.4", 105, "proxy-revalidate", "max-stale=50", "stale --m expired"),
        ("§4.2.4", 105, "s-maxage=100", "max-stale", "stale --m expired"),
        ("§4.2.4", 5, "no-cache", "max-stale", "stale --m no_cache"),
        ("§5.2.1.4", 5, "", "no-cache", "stale --- request_no_cache"),
        ("§5.2.1.4", 5, "", "No-Cache", "stale --- request_no_cache"),
        ("§5.2.1.4 argument", 5, "", "no-cache=\"a\"", "stale --- request_no_cache"),
        ("§5.2.1.4 stale", 105, "", "no-cache", "stale --- expired"),
        ("§5.2.1.4 with max-stale", 105, "", "no-cache, max-stale", "stale --- expired"),
        ("§5.2.1.4 before max-age", 5, "", "no-cache, max-age=0", "stale --- request_no_cache"),
        ("§5.2.1.5 no-store does not prevent reuse", 5, "", "no-store", "fresh"),
        ("§5.2.1.7", 5, "", "only-if-cached", "fresh"),
        ("§5.2.1.7 stale", 105, "", "only-if-cached", "stale re- expired"),
        ("RFC 8246 §2 no-cache", 5, "immutable", "no-cache", "stale --- request_no_cache"),
        ("RFC 8246 §2 max-age=0", 5, "immutable", "max-age=0", "stale -e- request_max_age"),
        ("RFC 5861 §4 of the request", 150, "", "stale-if-error=50", "stale -e- expired"),
        ("RFC 5861 §4 of the request", 151, "", "stale-if-error=50", "stale --- expired"),
        ("RFC 5861 §4 of the request, shorter", 115, "", "stale-if-error=1", "stale -e- expired"),
        ("§4.2.4 of the request", 105, "must-revalidate", "stale-if-error=50", "stale --m expired"),
        ("RFC 5861 §3 is not for requests", 150, "", "stale-while-revalidate=90", "stale --- expired"),
        ("§5.2.3 unknown directive", 50, "", "foo", "fresh"),
        ("§5.2 quoted string", 50, "", "a=\"no-cache, max-age=0\"", "fresh"),
    ]);
}

#[test]
fn pragma_of_a_request_forces_validation_unless_it_is_unknown() {
    for (value, expected) in [("no-cache", "stale --- request_no_cache"), ("unrecognised-extension", "fresh")] {
        assert_eq!(short(at(5, "", &map("pragma", value), &rules())), expected, "§5.4: {value}");
    }
}

#[test]
fn directives_of_a_request_are_ignored_without_client_directives() {
    let rules = Rules { client_directives: false, ..rules() };
    for request in ["no-cache", "max-age=0", "min-fresh=1000", "no-store", "only-if-cached"] {
        let request = map("cache-control", request);
        assert_eq!(short(at(5, "", &request, &rules)), "fresh", "§5.2.1: {request:?}");
        assert_eq!(request_directives(&request, &rules), CacheControl::default());
    }
    assert_eq!(short(at(5, "", &map("pragma", "no-cache"), &rules)), "fresh", "§5.4");
    assert_eq!(short(at(105, "", &map("cache-control", "max-stale"), &rules)), "stale re- expired", "§5.2.1.2");
    assert_eq!(short(at(150, "", &map("cache-control", "stale-if-error=99"), &rules)), "stale --- expired", "RFC 5861");
}

#[test]
fn targeted_field_of_the_response_decides_about_stale_responses() {
    let mut headers = map("cache-control", "must-revalidate");
    headers.insert("cdn-cache-control", HeaderValue::from_static("max-age=100"));
    let stored = StoredFacts {
        headers: &headers,
        epoch: start(),
        fresh_until: start() + Duration::from_secs(100),
        stale_while_revalidate: 10,
        stale_if_error: 0,
    };
    let reuse = judge(&stored, &HeaderMap::new(), &rules(), start() + Duration::from_secs(105));
    assert_eq!(short(reuse), "stale r-- expired", "RFC 9213 §2.2");
}

#[test]
fn age_includes_the_initial_age_and_parts_of_a_second() {
    let now = start() + Duration::from_millis(5500);
    let headers = HeaderMap::new();
    let stored = StoredFacts {
        headers: &headers,
        epoch: start(),
        fresh_until: start() + Duration::from_secs(100),
        stale_while_revalidate: 0,
        stale_if_error: 0,
    };
    assert_eq!(judge(&stored, &headers, &rules(), now), Reuse::Fresh { age: Duration::from_millis(5500) }, "§4.2.3");
    let request = map("cache-control", "max-age=5");
    assert_eq!(short(judge(&stored, &request, &rules(), now)), "stale -e- request_max_age", "§5.2.1.1");
}

#[test]
fn clock_that_is_set_back_keeps_a_response_usable_only_within_its_lifetime() {
    let headers = map("cache-control", "no-cache");
    let earlier = start() - Duration::from_secs(50);
    for (lifetime, expected) in [(100, "fresh"), (0, "stale --m no_cache")] {
        let stored = StoredFacts {
            headers: &headers,
            epoch: start(),
            fresh_until: start() + Duration::from_secs(lifetime),
            stale_while_revalidate: 0,
            stale_if_error: 0,
        };
        assert_eq!(stored.age(earlier), Duration::ZERO);
        assert_eq!(short(judge(&stored, &HeaderMap::new(), &rules(), earlier)), expected, "§4.2.3: {lifetime}");
    }
}

#[test]
fn ttl_is_the_rest_of_the_lifetime_and_negative_after_it() {
    let headers = HeaderMap::new();
    let stored = StoredFacts {
        headers: &headers,
        epoch: start(),
        fresh_until: start() + Duration::from_secs(100),
        stale_while_revalidate: 0,
        stale_if_error: 0,
    };
    let cases = [(0, 100), (30_000, 70), (30_500, 69), (100_000, 0), (100_001, -1), (101_000, -1), (130_000, -30)];
    for (milliseconds, expected) in cases {
        let now = start() + Duration::from_millis(milliseconds);
        assert_eq!(stored.ttl(now), expected, "RFC 9211 §2.4: {milliseconds} ms");
    }
}

#[test]
fn reasons_of_the_request_differ_from_those_of_the_response() {
    let of_request = [StaleReason::RequestNoCache, StaleReason::RequestMaxAge, StaleReason::RequestMinFresh];
    assert!(of_request.iter().all(|reason| reason.is_of_request()), "RFC 9211 §2.2");
    assert!(![StaleReason::Expired, StaleReason::NoCache].iter().any(|reason| reason.is_of_request()));
}
