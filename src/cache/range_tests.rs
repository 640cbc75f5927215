//! Tests of range requests, also against a plain model.

use http::{HeaderMap, HeaderValue, StatusCode};

use super::*;

fn plan_of(range: &str, length: u64) -> Plan {
    let mut request = HeaderMap::new();
    request.insert(RANGE, HeaderValue::from_bytes(range.as_bytes()).unwrap());
    plan(&request, StatusCode::OK, Some(length), Some(&HeaderValue::from_static("text/plain")), "B0undary")
}

/// `whole`, `416`, or the ranges.
fn summary(plan: &Plan) -> String {
    match plan {
        Plan::Whole => "whole".to_owned(),
        Plan::One { start, end_inclusive, .. } => format!("{start}-{end_inclusive}"),
        Plan::Many { parts, .. } => {
            parts.iter().map(|part| format!("{}-{}", part.start, part.end_inclusive)).collect::<Vec<_>>().join(" ")
        }
        Plan::Unsatisfiable { .. } => "416".to_owned(),
    }
}

fn check(length: u64, cases: &[(&str, &str, &str)]) {
    for (range, expected, section) in cases {
        assert_eq!(summary(&plan_of(range, length)), *expected, "{range} of {length} {section}");
    }
}

#[test]
fn single_ranges_select_the_bytes_that_exist() {
    check(
        10,
        &[
            ("bytes=0-1", "0-1", "RFC 9110 §14.1.2"),
            ("bytes=0-0", "0-0", "RFC 9110 §14.1.2"),
            ("bytes=9-9", "9-9", "RFC 9110 §14.1.2"),
            ("bytes=0-9", "0-9", "RFC 9110 §14.1.2"),
            ("bytes=1-", "1-9", "RFC 9110 §14.1.2: no last position"),
            ("bytes=0-", "0-9", "RFC 9110 §14.1.2: no last position"),
            ("bytes=9-", "9-9", "RFC 9110 §14.1.2: no last position"),
            ("bytes=5-100", "5-9", "RFC 9110 §14.1.2: beyond the end"),
            ("bytes=-1", "9-9", "RFC 9110 §14.1.2: suffix"),
            ("bytes=-10", "0-9", "RFC 9110 §14.1.2: suffix"),
            ("bytes=-11", "0-9", "RFC 9110 §14.1.2: suffix longer than the body"),
            ("bytes=00000000000000000000000-1", "0-1", "RFC 9110 §14.1.1: 1*DIGIT"),
            ("bytes=1-99999999999999999999999", "1-9", "RFC 9110 §17.5: overflow"),
            ("bytes=-99999999999999999999999", "0-9", "RFC 9110 §17.5: overflow"),
            ("bytes=1-18446744073709551615", "1-9", "RFC 9110 §14.1.2: largest number"),
            ("BYTES=0-1", "0-1", "RFC 9110 §14.1: units are case-insensitive"),
            ("bytes= 0-1 ", "0-1", "RFC 9110 §5.6.1"),
            ("bytes=,0-1", "0-1", "RFC 9110 §5.6.1.2"),
            ("bytes=0-1,", "0-1", "RFC 9110 §5.6.1.2"),
        ],
    );
}

#[test]
fn ranges_without_any_existing_byte_are_not_satisfiable() {
    check(
        10,
        &[
            ("bytes=10-", "416", "RFC 9110 §14.1.2"),
            ("bytes=10-10", "416", "RFC 9110 §14.1.2"),
            ("bytes=10-20, 30-", "416", "RFC 9110 §14.1.2: none"),
            ("bytes=-0", "416", "RFC 9110 §14.1.2: empty suffix"),
            ("bytes=99999999999999999999999-", "416", "RFC 9110 §17.5: overflow"),
            ("bytes=99999999999999999999998-99999999999999999999999", "416", "RFC 9110 §17.5: overflow"),
            ("bytes=0-1, 10-", "0-1", "RFC 9110 §15.5.17: one is enough"),
            ("bytes=10-, -1", "9-9", "RFC 9110 §15.5.17: one is enough"),
            ("bytes=-0, 5-5", "5-5", "RFC 9110 §15.5.17: one is enough"),
        ],
    );
    check(
        0,
        &[
            ("bytes=0-", "416", "RFC 9110 §14.1.2"),
            ("bytes=0-0", "416", "RFC 9110 §14.1.2"),
            ("bytes=-0", "416", "RFC 9110 §14.1.2"),
            ("bytes=-1", "whole", "RFC 9110 §14.1.2: satisfiable, but without bytes"),
        ],
    );
    let Plan::Unsatisfiable { content_range } = plan_of("bytes=10-", 10) else { panic!() };
    assert_eq!(content_range, "bytes */10", "RFC 9110 §15.5.17");
}

#[test]
fn invalid_ranges_and_other_units_are_ignored() {
    check(
        10,
        &[
            ("bytes=1-0", "whole", "RFC 9110 §14.1.1: last before first"),
            ("bytes=0-1, 3-2", "whole", "RFC 9110 §14.2: one is invalid"),
            ("bytes=0-1, x", "whole", "RFC 9110 §14.2: one is invalid"),
            ("bytes=", "whole", "RFC 9110 §14.1.1"),
            ("bytes=,", "whole", "RFC 9110 §14.1.1"),
            ("bytes", "whole", "RFC 9110 §14.1.1"),
            ("bytes=-", "whole", "RFC 9110 §14.1.1"),
            ("bytes=1", "whole", "RFC 9110 §14.1.1"),
            ("bytes=--1", "whole", "RFC 9110 §14.1.1"),
            ("bytes=0-1-2", "whole", "RFC 9110 §14.1.1"),
            ("bytes=0 - 1", "whole", "RFC 9110 §14.1.1: whitespace inside"),
            ("bytes=0- 1", "whole", "RFC 9110 §14.1.1: whitespace inside"),
            ("bytes =0-1", "whole", "RFC 9110 §14.1.1: whitespace before ="),
            ("bytes:0-1", "whole", "RFC 9110 §14.1.1"),
            ("bytes=+0-1", "whole", "RFC 9110 §14.1.1"),
            ("bytes=0x0-1", "whole", "RFC 9110 §14.1.1"),
            ("bytes=0.5-1", "whole", "RFC 9110 §14.1.1"),
            ("bytes=é-1", "whole", "RFC 9110 §14.1.1"),
            ("items=0-1", "whole", "RFC 9110 §14.2: an unknown unit"),
            ("", "whole", "RFC 9110 §14.1.1"),
        ],
    );
}

#[test]
fn several_ranges_keep_their_order_and_join_where_they_touch() {
    check(
        100,
        &[
            ("bytes=0-1,5-6", "0-1 5-6", "RFC 9110 §15.3.7.2"),
            ("bytes=0-1 ,\t5-6", "0-1 5-6", "RFC 9110 §5.6.1"),
            ("bytes=5-6,0-1", "5-6 0-1", "RFC 9110 §15.3.7.2: order of the request"),
            ("bytes=0-1,2-3", "0-3", "RFC 9110 §15.3.7.2: adjacent"),
            ("bytes=2-3,0-1", "0-3", "RFC 9110 §15.3.7.2: adjacent"),
            ("bytes=0-5,3-9", "0-9", "RFC 9110 §15.3.7.2: overlapping"),
            ("bytes=0-9,3-5", "0-9", "RFC 9110 §15.3.7.2: contained"),
            ("bytes=3-5,0-9", "0-9", "RFC 9110 §15.3.7.2: contained"),
            ("bytes=5-6,5-6", "5-6", "RFC 9110 §15.3.7.2: the same"),
            ("bytes=0-1,3-4,6-7", "0-1 3-4 6-7", "RFC 9110 §15.3.7.2: a gap of one byte"),
            ("bytes=0-1,2-3,5-6", "0-3 5-6", "RFC 9110 §15.3.7.2: some adjacent"),
            ("bytes=0-1,2-3,4-5,6-7", "0-7", "RFC 9110 §15.3.7.2: all adjacent"),
            ("bytes=0-9,-5", "0-9 95-99", "RFC 9110 §14.1.2: with a suffix"),
            ("bytes=-5,0-9", "95-99 0-9", "RFC 9110 §14.1.2: with a suffix"),
            ("bytes=0-9,90-", "0-9 90-99", "RFC 9110 §14.1.2: without a last position"),
            ("bytes=0-9,200-,50-59", "0-9 50-59", "RFC 9110 §15.5.17"),
            ("bytes=0-,-1", "0-99", "RFC 9110 §15.3.7.2: contained"),
        ],
    );
}

#[test]
fn abusive_sets_of_ranges_get_the_whole_response() {
    let many = |count: u64| {
        let ranges: Vec<String> = (0..count).map(|index| format!("{}-{}", index * 4, index * 4 + 1)).collect();
        format!("bytes={}", ranges.join(","))
    };
    check(
        100,
        &[
            (&many(16), &many(16).replace("bytes=", "").replace(',', " "), "RFC 9110 §14.2: at the limit"),
            (&many(17), "whole", "RFC 9110 §14.2: too many"),
            (&format!("bytes={}", "0-,".repeat(1000)), "whole", "RFC 9110 §17.15"),
            (&format!("bytes={}0-1", ",".repeat(1000)), "0-1", "RFC 9110 §5.6.1.2: empty members"),
            ("bytes=0-9,5-14,10-19", "whole", "RFC 9110 §14.2: more than two overlap"),
            ("bytes=0-,0-,0-", "whole", "RFC 9110 §17.15"),
            ("bytes=0-5,3-9,50-59", "0-9 50-59", "RFC 9110 §14.2: two overlap"),
            ("bytes=20-21,10-11,0-1", "whole", "RFC 9110 §14.2: descending"),
            ("bytes=0-1,20-21,10-11", "whole", "RFC 9110 §14.2: not ascending"),
        ],
    );
}

#[test]
fn only_complete_200_responses_with_known_length_have_ranges() {
    let request = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RANGE, HeaderValue::try_from(*value).unwrap());
        }
        headers
    };
    // Lines of Range, status, length, plan, section.
    type Case<'a> = (&'a [&'a str], u16, Option<u64>, &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (&["bytes=0-1"], 200, Some(10), "0-1", "RFC 9110 §14.2"),
        (&[], 200, Some(10), "whole", "RFC 9110 §14.2: no Range"),
        (&["bytes=0-1"], 200, None, "whole", "RFC 9110 §14.2: unknown length"),
        (&["bytes=0-1"], 203, Some(10), "whole", "RFC 9110 §14.2: not 200"),
        (&["bytes=0-1"], 204, Some(10), "whole", "RFC 9110 §14.2: not 200"),
        (&["bytes=0-1"], 404, Some(10), "whole", "RFC 9110 §14.2: not 200"),
        (&["bytes=0-1", "bytes=2-3"], 200, Some(10), "whole", "RFC 9110 §5.3: Range is no list"),
        (&["bytes=1-"], 200, Some(u64::MAX), "1-18446744073709551614", "largest length"),
        (&["bytes=-1"], 200, Some(u64::MAX), "18446744073709551614-18446744073709551614", "largest length"),
    ];
    for (lines, status, length, expected, section) in cases {
        let status = StatusCode::from_u16(*status).unwrap();
        let found = plan(&request(lines), status, *length, None, "b");
        assert_eq!(summary(&found), *expected, "{lines:?} {status} {length:?} {section}");
    }
}

#[test]
fn single_part_has_its_content_range() {
    let Plan::One { start: 2, end_inclusive: 4, content_range } = plan_of("bytes=2-4", 10) else { panic!() };
    assert_eq!(content_range, "bytes 2-4/10", "RFC 9110 §14.4");
}

#[test]
fn multipart_body_has_the_announced_length_and_delimits_its_parts() {
    let text = b"0123456789";
    let Plan::Many { boundary, content_type, parts, trailer, length } = plan_of("bytes=0-1,5-6", 10) else { panic!() };
    assert_eq!(boundary, "B0undary");
    assert_eq!(content_type, "multipart/byteranges; boundary=B0undary");
    let mut body = Vec::new();
    for part in &parts {
        body.extend_from_slice(&part.head);
        body.extend_from_slice(
            &text[usize::try_from(part.start).unwrap()..=usize::try_from(part.end_inclusive).unwrap()],
        );
    }
    body.extend_from_slice(&trailer);
    // RFC 9110 §14.6, RFC 2046 §5.1.1.
    let expected = "--B0undary\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
        \r\n--B0undary\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-6/10\r\n\r\n56\
        \r\n--B0undary--\r\n";
    assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
    assert_eq!(length, u64::try_from(expected.len()).unwrap());
}

#[test]
fn parts_have_no_content_type_if_the_stored_response_has_none() {
    let mut request = HeaderMap::new();
    request.insert(RANGE, HeaderValue::from_static("bytes=0-1,5-6"));
    let Plan::Many { parts, .. } = plan(&request, StatusCode::OK, Some(10), None, "b") else { panic!() };
    assert_eq!(&parts[0].head[..], b"--b\r\nContent-Range: bytes 0-1/10\r\n\r\n", "RFC 9110 §15.3.7.2");
    assert_eq!(&parts[1].head[..], b"\r\n--b\r\nContent-Range: bytes 5-6/10\r\n\r\n", "RFC 9110 §15.3.7.2");
}

#[test]
fn unusable_boundary_gets_the_whole_response() {
    let mut request = HeaderMap::new();
    request.insert(RANGE, HeaderValue::from_static("bytes=0-1,5-6"));
    // RFC 2046 §5.1.1.
    for boundary in ["", "a b", "a\r\n", "a\"", &"a".repeat(71)] {
        assert_eq!(plan(&request, StatusCode::OK, Some(10), None, boundary), Plan::Whole, "{boundary}");
    }
}

#[test]
fn random_sets_of_ranges_select_exactly_the_requested_bytes() {
    let mut state = 3_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..20_000 {
        let length = random(12);
        let mut wanted = vec![false; usize::try_from(length).unwrap()];
        let mut members = Vec::new();
        for _ in 0..=random(4) {
            let (first, last) = (random(14), random(14));
            let (member, range) = match random(4) {
                0 => (format!("{first}-"), first..length),
                1 => (format!("-{last}"), length.saturating_sub(last)..length),
                _ => {
                    let (first, last) = (first.min(last), first.max(last));
                    (format!("{first}-{last}"), first..(last + 1).min(length))
                }
            };
            range.for_each(|position| wanted[usize::try_from(position).unwrap()] = true);
            members.push(member);
        }
        let spans: Vec<(u64, u64)> = match plan_of(&format!("bytes={}", members.join(", ")), length) {
            Plan::Whole => continue,
            Plan::One { start, end_inclusive, .. } => vec![(start, end_inclusive)],
            Plan::Many { parts, .. } => parts.iter().map(|part| (part.start, part.end_inclusive)).collect(),
            Plan::Unsatisfiable { .. } => vec![],
        };
        let mut sent = vec![false; wanted.len()];
        for (start, end) in spans {
            for position in start..=end {
                let position = usize::try_from(position).unwrap();
                assert!(!sent[position], "{members:?} of {length} sends {position} twice");
                sent[position] = true;
            }
        }
        assert_eq!(sent, wanted, "{members:?} of {length}");
    }
}

#[test]
fn content_range_is_read_with_and_without_a_complete_length() {
    let range = |start, end_inclusive, complete| Some(ContentRange::Range { start, end_inclusive, complete });
    // Value, meaning (RFC 9110 §14.4).
    let cases = [
        ("bytes 0-1/10", range(0, 1, Some(10))),
        ("bytes 9-9/10", range(9, 9, Some(10))),
        ("bytes 0-1/*", range(0, 1, None)),
        ("Bytes 0-1/10", range(0, 1, Some(10))),
        ("bytes */10", Some(ContentRange::Unsatisfied { complete: 10 })),
        ("bytes */0", Some(ContentRange::Unsatisfied { complete: 0 })),
        ("bytes */*", None),
        ("bytes 2-1/10", None),
        ("bytes 0-10/10", None),
        ("bytes 0-1/1", None),
        ("bytes 0-1", None),
        ("bytes=0-1/10", None),
        ("bytes  0-1/10", None),
        ("bytes 0 - 1/10", None),
        ("bytes -1/10", None),
        ("bytes 0-/10", None),
        ("items 0-1/10", None),
        ("bytes 0-1/99999999999999999999", None),
        ("bytes +0-1/10", None),
        ("", None),
    ];
    for (value, expected) in cases {
        assert_eq!(parse_content_range(value.as_bytes()), expected, "{value}");
    }
}
