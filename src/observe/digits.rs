//! Digits of times in the access log, written without `core::fmt`, which costs several times as much.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY_SECONDS: u64 = 86_400;
/// Four centuries, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;
/// From 0000-03-01, when an era begins, to 1970-01-01.
const DAYS_TO_1970: u64 = 719_468;
/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// The last decimal digit of `number`.
pub(super) fn digit(number: u32) -> u8 {
    // The remainder is below ten.
    b'0' + (number % 10) as u8
}

/// ASCII bytes as text.
pub(super) fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// `time` in UTC as in RFC 3339, with milliseconds. A time outside the years 1970 to 9999 becomes the nearest one inside.
pub(super) fn rfc3339_millis(time: SystemTime) -> [u8; 24] {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().min(LAST_SECOND);
    let (y, m, d) = date(seconds / DAY_SECONDS);
    // Below the seconds of a day.
    let second = (seconds % DAY_SECONDS) as u32;
    let (minute, s) = (second / 60, second % 60);
    let (h, min, ms) = (minute / 60, minute % 60, since.subsec_millis());
    let n = digit;
    [
        n(y / 1000),
        n(y / 100),
        n(y / 10),
        n(y),
        b'-',
        n(m / 10),
        n(m),
        b'-',
        n(d / 10),
        n(d),
        b'T',
        n(h / 10),
        n(h),
        b':',
        n(min / 10),
        n(min),
        b':',
        n(s / 10),
        n(s),
        b'.',
        n(ms / 100),
        n(ms / 10),
        n(ms),
        b'Z',
    ]
}

/// The names of the months.
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// `time` in UTC as in the logs of Apache, such as `14/Nov/2023:22:13:20 +0000`.
pub(super) fn apache(time: SystemTime) -> [u8; 26] {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().min(LAST_SECOND);
    let (y, m, d) = date(seconds / DAY_SECONDS);
    // Below the seconds of a day.
    let second = (seconds % DAY_SECONDS) as u32;
    let (minute, s) = (second / 60, second % 60);
    let (h, min) = (minute / 60, minute % 60);
    let [m0, m1, m2] = **MONTHS.get((m as usize).saturating_sub(1)).unwrap_or(&MONTHS[0]);
    let n = digit;
    let (year, hour) = ([n(y / 1000), n(y / 100), n(y / 10), n(y)], [n(h / 10), n(h)]);
    let [y0, y1, y2, y3] = year;
    let [h0, h1] = hour;
    let (min0, min1, s0, s1) = (n(min / 10), n(min), n(s / 10), n(s));
    [
        n(d / 10),
        n(d),
        b'/',
        m0,
        m1,
        m2,
        b'/',
        y0,
        y1,
        y2,
        y3,
        b':',
        h0,
        h1,
        b':',
        min0,
        min1,
        b':',
        s0,
        s1,
        b' ',
        b'+',
        b'0',
        b'0',
        b'0',
        b'0',
    ]
}

/// Year, month and day of a day since 1970, at most in the year 9999. Years are counted from March, so that a leap day is
/// the last day of a year.
fn date(day: u64) -> (u32, u32, u32) {
    let day = day + DAYS_TO_1970;
    // Below four centuries.
    let (era, day) = ((day / ERA_DAYS) as u32, (day % ERA_DAYS) as u32);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months from March, and from August, have 153 days.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, is_next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + is_next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64, millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis)
    }

    #[test]
    fn every_day_from_1970_to_2500_is_formatted_as_humantime_does() {
        for day in 0..193_600 {
            // Another time of day each day.
            let time = at(day * DAY_SECONDS + day * 7919 % DAY_SECONDS, day * 31 % 1000);
            let expected = humantime::format_rfc3339_millis(time).to_string();
            assert_eq!(ascii(&rfc3339_millis(time)), expected);
        }
    }

    #[test]
    fn time_outside_of_four_digit_years_becomes_the_nearest_inside() {
        let text = |time| ascii(&rfc3339_millis(time)).to_owned();
        assert_eq!(text(at(0, 0) - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(at(LAST_SECOND, 999)), "9999-12-31T23:59:59.999Z");
        assert_eq!(text(at(LAST_SECOND + 1, 0)), "9999-12-31T23:59:59.000Z");
    }
}
