//! Tests of lifetimes and ages.

use super::super::fixtures_tests::{headers as map, rules};
use super::*;

/// Saturday, November 28, 2026, 00:00:00.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_824_000)
}

const MIDNIGHT: (&str, &str) = ("date", "Sat, 28 Nov 2026 00:00:00 GMT");

fn assess_with(rules: &Rules, status: u16, fields: &[(&str, &str)]) -> Freshness {
    let headers = map(fields);
    let times = Times { request: now(), response: now() };
    assess(status, &headers, &Policy::of_response(&headers), rules, times)
}

fn lifetime(fields: &[(&str, &str)]) -> (u64, Source) {
    let freshness = assess_with(&rules(), 200, fields);
    (freshness.lifetime.as_secs(), freshness.source)
}

#[test]
fn stated_lifetime_is_that_of_the_first_source_in_the_order_of_rfc_9111() {
    let hour = ("expires", "Sat, 28 Nov 2026 01:00:00 GMT");
    let past = ("expires", "Fri, 27 Nov 2026 00:00:00 GMT");
    let control = |value| ("cache-control", value);
    type Stated<'a> = (&'a str, Vec<(&'a str, &'a str)>, (u64, Source));
    let cases: Vec<Stated<'_>> = vec![
        ("§4.2.1", vec![], (0, Source::None)),
        ("§4.2.1", vec![control("max-age=60")], (60, Source::MaxAge)),
        ("§4.2.1", vec![control("max-age=0"), hour], (0, Source::MaxAge)),
        ("§5.3", vec![control("max-age=60"), past], (60, Source::MaxAge)),
        ("§5.3", vec![control("max-age=60"), ("expires", "0")], (60, Source::MaxAge)),
        ("§4.2.1 invalid max-age", vec![control("max-age=x"), hour], (0, Source::MaxAge)),
        ("§5.2.2.10", vec![control("max-age=60, s-maxage=1")], (1, Source::SMaxAge)),
        ("§5.2.2.10", vec![control("s-maxage=1, max-age=60")], (1, Source::SMaxAge)),
        ("§5.2.2.10", vec![control("max-age=1, s-maxage=60")], (60, Source::SMaxAge)),
        ("§5.2.2.10", vec![control("max-age=0, s-maxage=60"), past], (60, Source::SMaxAge)),
        ("§5.2.2.10", vec![control("max-age=60"), control("s-maxage=1")], (1, Source::SMaxAge)),
        ("§5.2.2.4", vec![control("max-age=60, no-cache"), hour], (0, Source::NoCache)),
        ("§5.2.2.4 field names", vec![control("max-age=60, no-cache=\"a\"")], (60, Source::MaxAge)),
        ("§5.2.2.1 no seconds in Expires", vec![control("public"), hour], (3600, Source::Expires)),
        ("§1.2.2", vec![control("max-age=99999999999")], (MAX_SECONDS, Source::MaxAge)),
        ("§5.3", vec![MIDNIGHT, hour], (3600, Source::Expires)),
        ("§5.3 no Date", vec![hour], (3600, Source::Expires)),
        ("§5.3 invalid Date", vec![("date", "foo"), hour], (3600, Source::Expires)),
        ("§5.3 past", vec![MIDNIGHT, past], (0, Source::Expires)),
        ("§5.3 present", vec![MIDNIGHT, ("expires", MIDNIGHT.1)], (0, Source::Expires)),
        ("§5.3 invalid", vec![MIDNIGHT, ("expires", "0")], (0, Source::Expires)),
        ("§5.3 invalid", vec![MIDNIGHT, ("expires", "Thu, 18 Aug 2050 02:01:18 UTC")], (0, Source::Expires)),
        ("§5.3 empty", vec![MIDNIGHT, ("expires", "")], (0, Source::Expires)),
        ("§4.2.1 slow Date", vec![("date", "Fri, 27 Nov 2026 23:59:50 GMT"), hour], (3610, Source::Expires)),
        ("§4.2.1 fast Date", vec![("date", "Sat, 28 Nov 2026 00:59:50 GMT"), hour], (10, Source::Expires)),
        ("§4.2.1 Date after Expires", vec![("date", "Sat, 28 Nov 2026 01:00:10 GMT"), hour], (0, Source::Expires)),
        ("§4.2.1 two lines", vec![MIDNIGHT, hour, past], (0, Source::Expires)),
        ("§4.2.1 two lines", vec![MIDNIGHT, hour, ("expires", "x")], (0, Source::Expires)),
        ("§4.2.1 two lines", vec![("expires", "Sat, 28 Nov 2026 02:00:00 GMT"), hour], (3600, Source::Expires)),
        (
            "§5.3 two dates in one line",
            vec![("expires", "Sat, 28 Nov 2026 01:00:00 GMT, Sat, 28 Nov 2026 01:00:00 GMT")],
            (0, Source::Expires),
        ),
        ("§5.3 RFC 850", vec![("expires", "Saturday, 28-Nov-26 01:00:00 GMT")], (3600, Source::Expires)),
        ("§5.3 asctime", vec![("expires", "Sat Nov 28 01:00:00 2026")], (3600, Source::Expires)),
        ("§5.3 year 9999", vec![("expires", "Fri, 31 Dec 9999 23:59:59 GMT")], (MAX_SECONDS, Source::Expires)),
        ("§5.3 before 1970", vec![("expires", "Mon, 01 Jan 1900 00:00:00 GMT")], (0, Source::Expires)),
        ("§5.4 Pragma of a response", vec![control("max-age=60"), ("pragma", "no-cache")], (60, Source::MaxAge)),
        ("RFC 9213 §2.2", vec![control("max-age=60"), ("cdn-cache-control", "max-age=5")], (5, Source::MaxAge)),
        ("RFC 9213 §2.2", vec![hour, ("cdn-cache-control", "max-age=0")], (0, Source::MaxAge)),
        ("RFC 9213 §2.2", vec![hour, ("cdn-cache-control", "public")], (0, Source::None)),
        ("RFC 9213 §2.2 invalid", vec![hour, ("cdn-cache-control", "&")], (3600, Source::Expires)),
    ];
    for (rule, fields, expected) in cases {
        assert_eq!(lifetime(&fields), expected, "{rule}: {fields:?}");
    }
}

/// Rule, settings, status, fields, lifetime and source.
type Case<'a> = (&'a str, &'a Rules, u16, Vec<(&'a str, &'a str)>, (u64, Source));

fn check(cases: &[Case<'_>]) {
    for (rule, rules, status, fields, expected) in cases {
        let freshness = assess_with(rules, *status, fields);
        assert_eq!((freshness.lifetime.as_secs(), freshness.source), *expected, "{rule}: {status} {fields:?}");
    }
}

#[test]
fn lifetime_is_estimated_from_last_modified_if_nothing_states_it() {
    let plain = rules();
    let estimating = Rules { heuristic: true, ..rules() };
    let modified = ("last-modified", "Fri, 27 Nov 2026 00:00:00 GMT");
    let old = ("last-modified", "Sat, 28 Nov 1970 00:00:00 GMT");
    let public = ("cache-control", "public");
    check(&[
        ("§4.2.2 a tenth", &estimating, 200, vec![MIDNIGHT, modified], (8640, Source::Heuristic)),
        ("§4.2.2 no Date", &estimating, 200, vec![modified], (8640, Source::Heuristic)),
        ("§4.2.2 at most a day", &estimating, 200, vec![MIDNIGHT, old], (86_400, Source::Heuristic)),
        ("§4.2.2 modified at Date", &estimating, 200, vec![("last-modified", MIDNIGHT.1)], (0, Source::None)),
        (
            "§4.2.2 modified after Date",
            &estimating,
            200,
            vec![MIDNIGHT, ("last-modified", "Sun, 29 Nov 2026 00:00:00 GMT")],
            (0, Source::None),
        ),
        ("§4.2.2 invalid", &estimating, 200, vec![("last-modified", "yesterday")], (0, Source::None)),
        ("§4.2.2 other status", &estimating, 201, vec![modified], (0, Source::None)),
        ("§4.2.2 other status", &estimating, 502, vec![modified], (0, Source::None)),
        ("§4.2.2 other status, public", &estimating, 599, vec![modified, public], (8640, Source::Heuristic)),
        ("§4.2.2 not set", &plain, 200, vec![modified], (0, Source::None)),
        (
            "§4.2.2 max-age states it",
            &estimating,
            200,
            vec![modified, ("cache-control", "max-age=1")],
            (1, Source::MaxAge),
        ),
        ("§4.2.2 invalid Expires", &estimating, 200, vec![modified, ("expires", "0")], (0, Source::Expires)),
        ("§5.4 Pragma", &estimating, 200, vec![modified, ("pragma", "no-cache")], (8640, Source::Heuristic)),
        (
            "RFC 9213 §2.2",
            &estimating,
            200,
            vec![modified, ("expires", "0"), ("cdn-cache-control", "foo")],
            (8640, Source::Heuristic),
        ),
    ]);
}

#[test]
fn lifetime_that_nothing_states_is_that_of_the_route() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let with_defaults = Rules { default_ttl: seconds(60), negative_ttl: seconds(5), ..rules() };
    let all = Rules { heuristic: true, statuses: vec![200, 404], ..with_defaults.clone() };
    let modified = ("last-modified", "Fri, 27 Nov 2026 00:00:00 GMT");
    let public = ("cache-control", "public");
    check(&[
        ("§4.2.2 default_ttl", &with_defaults, 200, vec![], (60, Source::DefaultTtl)),
        ("§4.2.2 default_ttl, other status", &with_defaults, 403, vec![], (0, Source::None)),
        ("§4.2.2 default_ttl, public", &with_defaults, 403, vec![public], (0, Source::None)),
        ("§4.2.1 before default_ttl", &with_defaults, 200, vec![("expires", "0")], (0, Source::Expires)),
        ("§4.2.2 negative_ttl", &with_defaults, 404, vec![], (5, Source::NegativeTtl)),
        ("§4.2.2 negative_ttl", &with_defaults, 405, vec![], (5, Source::NegativeTtl)),
        ("§4.2.2 negative_ttl", &with_defaults, 410, vec![], (5, Source::NegativeTtl)),
        ("§4.2.2 negative_ttl", &with_defaults, 414, vec![], (5, Source::NegativeTtl)),
        ("§4.2.2 negative_ttl", &with_defaults, 501, vec![], (5, Source::NegativeTtl)),
        ("§4.2.2 negative_ttl, other status", &with_defaults, 500, vec![], (0, Source::None)),
        ("§4.2.1 before negative_ttl", &with_defaults, 404, vec![("cache-control", "max-age=9")], (9, Source::MaxAge)),
        ("§4.2.2 negative_ttl before default_ttl", &all, 404, vec![], (5, Source::NegativeTtl)),
        ("§4.2.2 estimate before negative_ttl", &all, 404, vec![modified], (8640, Source::Heuristic)),
        ("§4.2.2 default_ttl without an estimate", &all, 200, vec![], (60, Source::DefaultTtl)),
    ]);
}

#[test]
fn lifetime_above_max_ttl_is_bounded() {
    let rules = Rules { max_ttl: Some(Duration::from_secs(30)), default_ttl: Some(Duration::from_secs(60)), ..rules() };
    for (control, seconds, bounded) in
        [("max-age=60", 30, true), ("max-age=30", 30, false), ("max-age=5", 5, false), ("foo", 30, true)]
    {
        let freshness = assess_with(&rules, 200, &[("cache-control", control)]);
        assert_eq!((freshness.lifetime.as_secs(), freshness.bounded), (seconds, bounded), "{control}");
    }
}

#[test]
fn age_is_the_first_member_and_ignored_if_it_is_not_a_number() {
    let cases: [(&str, &[&str], Option<u64>); 20] = [
        ("§5.1", &["0"], Some(0)),
        ("§5.1", &["7200"], Some(7200)),
        ("§1.2.2 2^31 - 1", &["2147483647"], Some(MAX_SECONDS - 1)),
        ("§1.2.2 2^31", &["2147483648"], Some(MAX_SECONDS)),
        ("§1.2.2 2^31 + 1", &["2147483649"], Some(MAX_SECONDS)),
        ("§1.2.2 huge", &["99999999999999999999999"], Some(MAX_SECONDS)),
        ("§5.1 list", &["7200,0"], Some(7200)),
        ("§5.1 list", &["7200, 0"], Some(7200)),
        ("§5.1 list", &["0,7200"], Some(0)),
        ("§5.1 list", &["0 , 7200"], Some(0)),
        ("§5.1 lines", &["7200", "0"], Some(7200)),
        ("§5.1 lines", &["0", "7200"], Some(0)),
        ("§5.1 list, first invalid", &["x, 7200"], None),
        ("§5.1 list, first empty", &[", 7200"], None),
        ("§5.1 no number", &["abc"], None),
        ("§5.1 negative", &["-7200"], None),
        ("§5.1 decimal", &["7200.0"], None),
        ("§5.1 parameter", &["7200;foo=bar"], None),
        ("§5.1 quoted", &["\"7200\""], None),
        ("§5.1 empty", &[""], None),
    ];
    for (rule, lines, expected) in cases {
        let fields: Vec<_> = lines.iter().map(|line| ("age", *line)).collect();
        assert_eq!(age_value(&map(&fields)), expected, "{rule}: {lines:?}");
    }
    assert_eq!(age_value(&HeaderMap::new()), None);
}

#[test]
fn initial_age_is_the_larger_of_apparent_and_corrected_age() {
    let earlier = ("date", "Fri, 27 Nov 2026 23:58:20 GMT");
    let later = ("date", "Sat, 28 Nov 2026 00:01:40 GMT");
    // Rule, fields, milliseconds between request and response, milliseconds of age.
    type Aged<'a> = (&'a str, &'a [(&'a str, &'a str)], u64, u64);
    let cases: [Aged<'_>; 12] = [
        ("§4.2.3 no field", &[], 0, 0),
        ("§4.2.3 delay", &[], 250, 250),
        ("§4.2.3 Age", &[MIDNIGHT, ("age", "30")], 0, 30_000),
        ("§4.2.3 Age and delay", &[MIDNIGHT, ("age", "30")], 2500, 32_500),
        ("§4.2.3 Date in the past", &[earlier], 0, 100_000),
        ("§4.2.3 Date in the past and delay", &[earlier], 2500, 100_000),
        ("§4.2.3 Date in the future", &[later], 0, 0),
        ("§4.2.3 Date below Age", &[earlier, ("age", "30")], 0, 100_000),
        ("§4.2.3 Date above Age", &[earlier, ("age", "130")], 0, 130_000),
        ("§4.2.3 Date in the future, Age", &[later, ("age", "30")], 0, 30_000),
        ("§4.2.3 invalid Date", &[("date", "x"), ("age", "30")], 0, 30_000),
        ("§1.2.2 huge Age and delay", &[("age", "99999999999")], 5000, MAX_SECONDS * 1000),
    ];
    for (rule, fields, delay, expected) in cases {
        let headers = map(fields);
        let times = Times { request: now() - Duration::from_millis(delay), response: now() };
        let freshness = assess(200, &headers, &Policy::default(), &rules(), times);
        assert_eq!(freshness.initial_age, Duration::from_millis(expected), "{rule}: {fields:?}");
    }
}

#[test]
fn part_of_a_second_is_no_apparent_age() {
    let response = now() + Duration::from_millis(900);
    let headers = map(&[MIDNIGHT]);
    let times = Times { request: response, response };
    assert_eq!(assess(200, &headers, &Policy::default(), &rules(), times).initial_age, Duration::ZERO, "§4.2.3");
}

#[test]
fn clock_that_is_set_back_during_a_request_gives_no_delay() {
    let times = Times { request: now() + Duration::from_secs(5), response: now() };
    let freshness = assess(200, &map(&[MIDNIGHT]), &Policy::default(), &rules(), times);
    assert_eq!(freshness.initial_age, Duration::ZERO, "§4.2.3");
}

#[test]
fn epoch_and_end_follow_from_age_and_lifetime() {
    let freshness = assess_with(&rules(), 200, &[("cache-control", "max-age=60"), ("age", "20")]);
    assert_eq!(freshness.epoch(now()), now() - Duration::from_secs(20));
    assert_eq!(freshness.fresh_until(now()), now() + Duration::from_secs(40));
}

#[test]
fn clock_before_1970_does_not_panic() {
    let early = SystemTime::UNIX_EPOCH - Duration::from_secs(10);
    let times = Times { request: early, response: early };
    let headers = map(&[MIDNIGHT, ("expires", "Fri, 31 Dec 9999 23:59:59 GMT"), ("age", "99999999999")]);
    let freshness = assess(200, &headers, &Policy::default(), &rules(), times);
    assert!(freshness.fresh_until(early) >= freshness.epoch(early));
}
