//! Fields of messages in the table: dates, and checks of values.
//!
//! `{now+60}` is a date in 60 seconds; `start` instead of `now` counts from the start of the case, so that it does not
//! change. `{rfc850+60}`, `{asctime+60}`, `{lower+60}`, `{utc+60}` and `{nozone+60}` are other forms of it. `{path}` is
//! the path of the case.

use std::time::{Duration, SystemTime};

use super::super::wire::Message;

/// One expectation about a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    Absent(String),
    Equal(String, String),
    Contains(String, String),
    Lacks(String, String),
    AtLeast(String, u64),
    AtMost(String, u64),
}

impl Check {
    /// Reads `!Name`, `Name: value`, `Name~part`, `Name!~part`, `Name>=1` or `Name<=1`.
    pub fn parse(text: &str) -> Self {
        if let Some(name) = text.strip_prefix('!') {
            return Self::Absent(name.to_owned());
        }
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(text.len());
        let (name, rest) = (text[..end].to_owned(), &text[end..]);
        let number = || rest[2..].trim().parse().unwrap_or_else(|e| panic!("{e}: {text}"));
        match rest {
            _ if rest.starts_with(">=") => Self::AtLeast(name, number()),
            _ if rest.starts_with("<=") => Self::AtMost(name, number()),
            _ if rest.starts_with("!~") => Self::Lacks(name, rest[2..].to_owned()),
            _ if rest.starts_with('~') => Self::Contains(name, rest[1..].to_owned()),
            _ if rest.starts_with(':') => Self::Equal(name, rest[1..].trim().to_owned()),
            _ => panic!("not a check: {text}"),
        }
    }

    /// The name of the field.
    pub fn name(&self) -> &str {
        let (Self::Absent(name)
        | Self::Equal(name, _)
        | Self::Contains(name, _)
        | Self::Lacks(name, _)
        | Self::AtLeast(name, _)
        | Self::AtMost(name, _)) = self;
        name
    }

    /// What is wrong with the message, if anything.
    pub fn fault(&self, message: &Message, dates: &Dates) -> Option<String> {
        let name = self.name();
        let value = message.field(name);
        let number = value.as_ref().and_then(|value| value.parse::<u64>().ok());
        let holds = match self {
            Self::Absent(_) => value.is_none(),
            Self::Equal(_, expected) => value.as_ref() == Some(&dates.fill(expected)),
            Self::Contains(_, part) => value.as_ref().is_some_and(|value| value.contains(&dates.fill(part))),
            Self::Lacks(_, part) => !value.as_ref().is_some_and(|value| value.contains(part)),
            Self::AtLeast(_, least) => number.is_some_and(|number| number >= *least),
            Self::AtMost(_, most) => number.is_some_and(|number| number <= *most),
        };
        (!holds).then(|| format!("expected {self:?}, but {name} is {value:?}"))
    }
}

/// What placeholders stand for.
pub struct Dates {
    pub start: SystemTime,
    pub path: String,
}

impl Dates {
    /// Replaces the placeholders of a value.
    pub fn fill(&self, text: &str) -> String {
        let Some((before, rest)) = text.split_once('{') else { return text.to_owned() };
        let (name, after) = rest.split_once('}').unwrap_or_else(|| panic!("no `}}` in {text}"));
        format!("{before}{}{}", self.value(name), self.fill(after))
    }

    fn value(&self, name: &str) -> String {
        if name == "path" {
            return self.path.clone();
        }
        let sign = name.find(['+', '-']).unwrap_or(name.len());
        let (form, offset) = (&name[..sign], name[sign..].parse::<i64>().unwrap_or(0));
        let base = if form == "start" { self.start } else { SystemTime::now() };
        let distance = Duration::from_secs(offset.unsigned_abs());
        let date = httpdate::fmt_http_date(if offset < 0 { base - distance } else { base + distance });
        let parts: Vec<&str> = date.split([' ', ',']).filter(|part| !part.is_empty()).collect();
        let [weekday, day, month, year, time, _] = parts[..] else { panic!("{date}") };
        match form {
            "now" | "start" => date,
            "lower" => date.to_lowercase(),
            "utc" => date.replace("GMT", "UTC"),
            "nozone" => date.replace(" GMT", ""),
            "asctime" => format!("{weekday} {month} {:>2} {time} {year}", day.trim_start_matches('0')),
            "rfc850" => format!("{}, {day}-{month}-{} {time} GMT", long_weekday(weekday), &year[2..]),
            _ => panic!("unknown placeholder {{{name}}}"),
        }
    }
}

fn long_weekday(short: &str) -> &'static str {
    let names = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    names.into_iter().find(|name| name.starts_with(short)).unwrap()
}

#[test]
fn dates_are_written_in_all_three_formats() {
    let dates = Dates { start: SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777), path: "/p/1".to_owned() };
    assert_eq!(dates.fill("{start} at {path}"), "Sun, 06 Nov 1994 08:49:37 GMT at /p/1");
    assert_eq!(dates.fill("{start-1}"), "Sun, 06 Nov 1994 08:49:36 GMT");
    assert!(dates.fill("{rfc850}").contains("day, ") && dates.fill("{asctime}").len() == 24);
}
