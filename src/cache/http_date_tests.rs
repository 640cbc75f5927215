//! Tests of HTTP-dates.

use super::*;

/// Saturday, November 28, 2026, 00:00:00.
const NOW: i64 = 1_795_824_000;

fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

fn seconds(text: &str) -> Option<i64> {
    parse(text.as_bytes(), time(NOW)).map(whole_seconds)
}

#[test]
fn valid_date_has_its_time() {
    let cases: [(&str, &str, i64); 27] = [
        ("§5.6.7 IMF-fixdate", "Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ("§5.6.7 RFC 850", "Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
        ("§5.6.7 asctime", "Sun Nov  6 08:49:37 1994", 784_111_777),
        ("§5.6.7 asctime, two digits", "Wed Nov 16 08:49:37 1994", 784_975_777),
        ("§5.6.7 asctime, zero", "Sun Nov 06 08:49:37 1994", 784_111_777),
        ("§5.6.7 1970", "Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("§5.6.7 before 1970", "Wed, 31 Dec 1969 23:59:59 GMT", -1),
        ("§5.6.7 before 1970", "Mon, 01 Jan 1900 00:00:00 GMT", -2_208_988_800),
        ("§5.6.7 year 0", "Sat, 01 Jan 0000 00:00:00 GMT", -62_167_219_200),
        ("§5.6.7 year 9999", "Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ("§5.6.7 32 bits", "Tue, 19 Jan 2038 03:14:08 GMT", 2_147_483_648),
        ("§5.6.7 far future", "Sun, 21 Nov 2286 04:46:39 GMT", 10_000_039_599),
        ("§5.6.7 leap day", "Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800),
        ("§5.6.7 leap day of 2000", "Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
        ("§5.6.7 leap second", "Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_799),
        ("§5.6.7 wrong weekday", "Mon, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ("RFC 9111 §4.2 case of the weekday", "SUN, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ("RFC 9111 §4.2 case of the month", "Sun, 06 NOV 1994 08:49:37 GMT", 784_111_777),
        ("RFC 9111 §4.2 case of the zone", "Sun, 06 Nov 1994 08:49:37 gMT", 784_111_777),
        ("RFC 9111 §4.2 lower case", "sunday, 06-nov-94 08:49:37 gmt", 784_111_777),
        ("RFC 9110 §5.5 spaces around", " Sun, 06 Nov 1994 08:49:37 GMT\t", 784_111_777),
        ("§5.6.7 two digits, future", "Thursday, 18-Aug-50 02:01:18 GMT", 2_544_400_878),
        ("§5.6.7 two digits, now", "Saturday, 28-Nov-26 00:00:00 GMT", NOW),
        ("§5.6.7 two digits, 50 years ahead", "Saturday, 28-Nov-76 00:00:00 GMT", 3_373_747_200),
        ("§5.6.7 two digits, more than 50 years ahead", "Sunday, 28-Nov-76 00:00:01 GMT", 217_987_201),
        ("§5.6.7 two digits, 51 years ahead", "Sunday, 28-Nov-77 00:00:00 GMT", 249_523_200),
        ("§5.6.7 two digits, 99", "Friday, 31-Dec-99 23:59:59 GMT", 946_684_799),
    ];
    for (rule, text, expected) in cases {
        assert_eq!(seconds(text), Some(expected), "{rule}: {text}");
    }
}

#[test]
fn two_digit_year_is_at_most_50_years_ahead_in_every_century() {
    let cases: [(&str, i64, &str, i64); 3] = [
        ("1999", 946_684_799, "Saturday, 01-Jan-00 00:00:00 GMT", 946_684_800),
        ("2000", 946_684_800, "Friday, 31-Dec-99 23:59:59 GMT", 946_684_799),
        ("2099", 4_102_444_799, "Friday, 01-Jan-05 00:00:00 GMT", 4_260_211_200),
    ];
    for (rule, now, text, expected) in cases {
        assert_eq!(parse(text.as_bytes(), time(now)).map(whole_seconds), Some(expected), "§5.6.7 {rule}: {text}");
    }
}

#[test]
fn invalid_date_is_refused() {
    let cases: [(&str, &str); 39] = [
        ("§5.6.7", ""),
        ("RFC 9111 §5.3", "0"),
        ("RFC 9111 §5.3", "-1"),
        ("§5.6.7", "foo"),
        ("§5.6.7", "Thu, 32 Foo"),
        ("§5.6.7 seconds since 1970", "784111777"),
        ("§5.6.7 ISO 8601", "1994-11-06T08:49:37Z"),
        ("§5.6.7 no zone", "Sun, 06 Nov 1994 08:49:37"),
        ("RFC 9111 §4.2 zone", "Thu, 18 Aug 2050 02:01:18 UTC"),
        ("RFC 9111 §4.2 zone", "Thu, 18 Aug 2050 02:01:18 AEST"),
        ("RFC 9111 §4.2 zone", "Thu, 18 Aug 2050 02:01:18 +0000"),
        ("RFC 9111 §4.2 zone", "Thu, 18 Aug 2050 02:01:18 GMT+1"),
        ("RFC 9111 §4.2 zone", "Thu, 18 Aug 2050 02:01:18 Z"),
        ("§5.6.7 no comma", "Thu 18 Aug 2050 02:01:18 GMT"),
        ("§5.6.7 no space", "Thu,18 Aug 2050 02:01:18 GMT"),
        ("§5.6.7 two spaces", "Thu, 18  Aug  2050 02:01:18 GMT"),
        ("§5.6.7 tab", "Thu,\t18 Aug 2050 02:01:18 GMT"),
        ("§5.6.7 dashes", "Thu, 18-Aug-2050 02:01:18 GMT"),
        ("§5.6.7 dashes and a short weekday", "Thu, 18-Aug-50 02:01:18 GMT"),
        ("§5.6.7 periods", "Thu, 18 Aug 2050 02.01.18 GMT"),
        ("§5.6.7 hour of 1 digit", "Thu, 18 Aug 2050 2:01:18 GMT"),
        ("§5.6.7 day of 1 digit", "Thu, 8 Aug 2050 02:01:18 GMT"),
        ("§5.6.7 day with a space", "Thu,  8 Aug 2050 02:01:18 GMT"),
        ("§5.6.7 year of 2 digits", "Thu, 18 Aug 50 02:01:18 GMT"),
        ("§5.6.7 year of 3 digits", "Thu, 18 Aug 205 02:01:18 GMT"),
        ("§5.6.7 year of 5 digits", "Thu, 18 Aug 20500 02:01:18 GMT"),
        ("§5.6.7 negative year", "Thu, 18 Aug -205 02:01:18 GMT"),
        ("§5.6.7 hour 24", "Thu, 18 Aug 2050 24:00:00 GMT"),
        ("§5.6.7 minute 60", "Thu, 18 Aug 2050 02:60:18 GMT"),
        ("§5.6.7 second 61", "Thu, 18 Aug 2050 02:01:61 GMT"),
        ("§5.6.7 day 0", "Thu, 00 Aug 2050 02:01:18 GMT"),
        ("§5.6.7 day 32", "Thu, 32 Aug 2050 02:01:18 GMT"),
        ("§5.6.7 April 31", "Thu, 31 Apr 2050 02:01:18 GMT"),
        ("§5.6.7 no leap year", "Thu, 29 Feb 2023 02:01:18 GMT"),
        ("§5.6.7 no leap year", "Thu, 29 Feb 2100 02:01:18 GMT"),
        ("§5.6.7 weekday", "Foo, 18 Aug 2050 02:01:18 GMT"),
        ("§5.6.7 text after", "Thu, 18 Aug 2050 02:01:18 GMT, x"),
        ("§5.6.7 text before", "x Thu, 18 Aug 2050 02:01:18 GMT"),
        ("§5.6.7 no ASCII", "Thu, 18 A\u{fc}g 2050 02:01:18 GMT"),
    ];
    for (rule, text) in cases {
        assert_eq!(seconds(text), None, "{rule}: {text}");
    }
}

#[test]
fn every_prefix_and_changed_byte_is_read_without_a_panic() {
    for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
        for length in 0..text.len() {
            assert_eq!(seconds(&text[..length]), None, "{text}");
            for byte in 0..=u8::MAX {
                let mut changed = text.as_bytes().to_vec();
                changed[length] = byte;
                let date = parse(&changed, time(NOW));
                assert!(date.is_none_or(|date| whole_seconds(date).abs() < 300_000_000_000), "{changed:?}");
            }
        }
    }
}

#[test]
fn days_and_dates_convert_both_ways() {
    for days in (-800_000..3_000_000).step_by(13) {
        let (year, month, day) = civil_date(days);
        assert!((1..=12).contains(&month) && day >= 1 && day <= days_of_month(year, month), "{days}");
        assert_eq!(days_since_1970(year, month, day), days);
    }
}

#[test]
fn whole_seconds_are_those_at_the_start_of_the_second() {
    let half = Duration::from_millis(500);
    let cases = [(time(5) + half, 5), (time(0), 0), (time(0) - half, -1), (time(-5), -5), (time(-5) - half, -6)];
    for (time, expected) in cases {
        assert_eq!(whole_seconds(time), expected, "{time:?}");
    }
}

#[test]
fn clock_far_from_now_does_not_panic() {
    for now in [time(0), time(-5_000_000_000), time(500_000_000_000)] {
        assert!(parse(b"Sunday, 06-Nov-94 08:49:37 GMT", now).is_some());
    }
}
