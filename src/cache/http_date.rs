//! HTTP-dates (RFC 9110 §5.6.7) as caches read them (RFC 9111 §4.2).
//!
//! All three formats are accepted in any case. The weekday must be a name, but need not be that of the date. Everything
//! else is invalid: other time zones, other separators, numbers with fewer digits. The `httpdate` crate is not used
//! here, because it is case-sensitive, refuses years before 1970, and fixes the century of two-digit years.

use std::time::{Duration, SystemTime};

/// Reads an HTTP-date. `now` is the clock of the cache; it selects the century of a two-digit year. The result may be
/// before 1970. A leap second counts as the second before it, because the result may not be later than the date.
#[must_use]
pub fn parse(value: &[u8], now: SystemTime) -> Option<SystemTime> {
    let text = value.trim_ascii();
    let date = parse_imf_fixdate(text).or_else(|| parse_asctime(text)).or_else(|| parse_rfc850(text, now))?;
    date.to_system_time()
}

/// Seconds since 1970 at the start of the second of `time`; negative before 1970.
pub(super) fn whole_seconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(error) => {
            let before = error.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX - 1);
            -seconds - i64::from(before.subsec_nanos() > 0)
        }
    }
}

/// The fields of a date; they order by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Date {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
}

const SECONDS_OF_DAY: i64 = 86_400;

impl Date {
    fn to_system_time(self) -> Option<SystemTime> {
        if self.day < 1 || self.day > days_of_month(self.year, self.month) {
            return None;
        }
        let seconds = days_since_1970(self.year, self.month, self.day) * SECONDS_OF_DAY + self.second_of_day;
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH;
        if seconds < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) }
    }

    fn of_system_time(time: SystemTime) -> Self {
        let seconds = whole_seconds(time);
        let (year, month, day) = civil_date(seconds.div_euclid(SECONDS_OF_DAY));
        Self { year, month, day, second_of_day: seconds.rem_euclid(SECONDS_OF_DAY) }
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn parse_imf_fixdate(text: &[u8]) -> Option<Date> {
    let mut reader = Reader { rest: text };
    reader.short_weekday()?;
    reader.literal(b", ")?;
    let day = reader.digits(2)?;
    reader.literal(b" ")?;
    let month = reader.month()?;
    reader.literal(b" ")?;
    let year = reader.digits(4)?;
    reader.literal(b" ")?;
    let second_of_day = reader.time()?;
    reader.literal(b" GMT")?;
    reader.end(Date { year, month, day, second_of_day })
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`.
fn parse_rfc850(text: &[u8], now: SystemTime) -> Option<Date> {
    let mut reader = Reader { rest: text };
    reader.long_weekday()?;
    reader.literal(b", ")?;
    let day = reader.digits(2)?;
    reader.literal(b"-")?;
    let month = reader.month()?;
    reader.literal(b"-")?;
    let year = reader.digits(2)?;
    reader.literal(b" ")?;
    let second_of_day = reader.time()?;
    reader.literal(b" GMT")?;
    let now = Date::of_system_time(now);
    // The latest year with these digits that is at most 50 years ahead.
    let limit = Date { year: now.year + 50, ..now };
    let century = now.year.div_euclid(100) * 100;
    let candidates = [century + 100, century, century - 100];
    let mut dates = candidates.map(|century| Date { year: century + year, month, day, second_of_day }).into_iter();
    reader.end(dates.find(|date| *date <= limit)?)
}

/// `Sun Nov  6 08:49:37 1994`.
fn parse_asctime(text: &[u8]) -> Option<Date> {
    let mut reader = Reader { rest: text };
    reader.short_weekday()?;
    reader.literal(b" ")?;
    let month = reader.month()?;
    reader.literal(b" ")?;
    let day = if reader.literal(b" ").is_some() { reader.digits(1)? } else { reader.digits(2)? };
    reader.literal(b" ")?;
    let second_of_day = reader.time()?;
    reader.literal(b" ")?;
    let year = reader.digits(4)?;
    reader.end(Date { year, month, day, second_of_day })
}

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const WEEKDAYS: [&[u8]; 7] = [b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday", b"Sunday"];

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// Takes the text in any case, or nothing.
    fn literal(&mut self, text: &[u8]) -> Option<()> {
        let (start, rest) = self.rest.split_at_checked(text.len())?;
        start.eq_ignore_ascii_case(text).then(|| self.rest = rest)
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        let digits = self.take(count)?;
        let value = |sum: i64, digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'));
        digits.iter().try_fold(0, value)
    }

    fn short_weekday(&mut self) -> Option<()> {
        WEEKDAYS.iter().find_map(|name| self.literal(name.get(..3)?))
    }

    fn long_weekday(&mut self) -> Option<()> {
        WEEKDAYS.iter().find_map(|name| self.literal(name))
    }

    fn month(&mut self) -> Option<i64> {
        let name = self.take(3)?;
        let index = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
        i64::try_from(index + 1).ok()
    }

    /// `08:49:37` as a second of the day.
    fn time(&mut self) -> Option<i64> {
        let hour = self.digits(2)?;
        self.literal(b":")?;
        let minute = self.digits(2)?;
        self.literal(b":")?;
        let second = self.digits(2)?;
        (hour < 24 && minute < 60 && second <= 60).then(|| hour * 3600 + minute * 60 + second.min(59))
    }

    fn end(&self, date: Date) -> Option<Date> {
        self.rest.is_empty().then_some(date)
    }
}

const fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The days of a cycle of 400 years of the Gregorian calendar.
const DAYS_OF_CYCLE: i64 = 146_097;
/// The days from March 1 of the year 0 to January 1, 1970.
const DAYS_TO_1970: i64 = 719_468;

/// The days from January 1, 1970 to a date. The year starts in March here, so that a leap day is its last day.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let (cycle, year) = (year.div_euclid(400), year.rem_euclid(400));
    // Months from March have 31, 30, 31, 30, 31 days, and again.
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    cycle * DAYS_OF_CYCLE + year * 365 + year / 4 - year / 100 + day_of_year - DAYS_TO_1970
}

/// The year, month and day that is this number of days after January 1, 1970.
const fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_1970;
    let (cycle, day) = (days.div_euclid(DAYS_OF_CYCLE), days.rem_euclid(DAYS_OF_CYCLE));
    // Leap days are removed first, so that each year has 365 days.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = cycle * 400 + year;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
#[path = "http_date_tests.rs"]
mod tests;
