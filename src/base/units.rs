//! Units and names in the configuration and in API responses: `"5s"`, `"10MiB"`, the name of a pool, a
//! timestamp.
//!
//! A number without a unit is rejected where the unit is ambiguous: `timeout: 20` could mean seconds or
//! milliseconds, and other load balancers disagree about it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A duration with its unit: `"250ms"`, `"5s"`, `"1m 30s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    /// A period of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PeriodVisitor)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The grammar of humantime: numbers, each with its unit.
        let pattern = "^\\s*([0-9]+\\s*[a-zA-Zµ]+\\s*)+$";
        json_schema!({
            "anyOf": [{ "type": "string", "pattern": pattern, "examples": ["250ms", "5s", "1m 30s"] }, { "const": 0 }]
        })
    }
}

struct PeriodVisitor;

impl Visitor<'_> for PeriodVisitor {
    type Value = Period;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as 250ms, 5s or 1m")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
        humantime::parse_duration(text)
            .map(Period)
            .map_err(|e| E::custom(format!("`{text}` is not a duration ({e}); write for example 250ms, 5s or 1m")))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Period, E> {
        if number == 0 {
            return Ok(Period(Duration::ZERO));
        }
        Err(E::custom(format!("`{number}` has no unit; write {number}s for seconds or {number}ms for milliseconds")))
    }
}

/// A number of bytes, plain or with a unit: `512`, `"32KiB"`, `"100MiB"`, `"1GB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Units in matching order; longer ones first, so that `KiB` is not read as `B`.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl Size {
    /// A size of whole KiB.
    #[must_use]
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// A size of whole MiB.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    fn parse(text: &str) -> Option<Self> {
        let (digits, factor) = SIZE_UNITS
            .iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits, *factor)))
            .unwrap_or((text, 1));
        digits.trim_end().parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match whole {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let units: Vec<&str> = SIZE_UNITS.iter().map(|(unit, _)| *unit).collect();
        let pattern = format!("^[0-9]+\\s*({})?$", units.join("|"));
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": pattern, "examples": ["32KiB", "100MiB"] },
            ]
        })
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, such as 512, 32KiB or 100MiB")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Size, E> {
        Ok(Size(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        Size::parse(text)
            .ok_or_else(|| E::custom(format!("`{text}` is not a size; write for example 512, 32KiB or 100MiB")))
    }
}

/// A timestamp in RFC 3339: `"2026-05-04T12:00:00Z"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub SystemTime);

impl Timestamp {
    /// The current time, rounded to milliseconds as in its text.
    #[must_use]
    pub fn now() -> Self {
        let now = SystemTime::now();
        let below = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos() % 1_000_000);
        Self(now - Duration::from_nanos(u64::from(below)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since.subsec_millis() == 0);
        if whole {
            write!(f, "{}", humantime::format_rfc3339_seconds(self.0))
        } else {
            write!(f, "{}", humantime::format_rfc3339_millis(self.0))
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Self).map_err(de::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time", "examples": ["2026-05-04T12:00:00.000Z"] })
    }
}

/// A percentage: `"5%"`, `"0.5%"`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// The fraction, from 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|digits| digits.trim_end().parse::<f64>().ok());
        let percent = number.filter(|number| (0.0..=100.0).contains(number)).map(Self);
        percent.ok_or_else(|| format!("`{text}` is not a percentage; write for example 5%"))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PercentVisitor)
    }
}

struct PercentVisitor;

impl Visitor<'_> for PercentVisitor {
    type Value = Percent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a percentage, such as 5%")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Percent, E> {
        text.parse().map_err(E::custom)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+([.][0-9]+)?\\s*%$", "examples": ["5%", "0.5%"] })
    }
}

/// A name from the configuration; cheap to clone into requests and log lines.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $type {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl From<&str> for $type {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a pool of backends.
    PoolName
);
name!(
    /// The name of a route: configured, or the text of its matcher.
    RouteName
);

/// The name of a zone: a place of backends and of the balancer, such as `eu-west-1a`, within which traffic is fast and
/// cheap. 1 to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, as the values of Kubernetes
/// labels. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(Arc<str>);

/// The largest number of characters of a zone.
const ZONE_LENGTH_MAX: usize = 63;

impl Zone {
    /// The name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let is_zone = bytes.len() <= ZONE_LENGTH_MAX
            && is_end(bytes.first())
            && is_end(bytes.last())
            && bytes.iter().all(is_inner);
        if is_zone {
            return Ok(Self(text.into()));
        }
        Err(format!(
            "`{text}` is not the name of a zone; write at most {ZONE_LENGTH_MAX} letters, digits, `-`, `_` and `.`, such as eu-west-1a"
        ))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Zone {
    fn schema_name() -> Cow<'static, str> {
        "Zone".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = "^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$";
        json_schema!({ "type": "string", "pattern": pattern, "examples": ["eu-west-1a"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(yaml: &str) -> Result<Period, String> {
        serde_yaml::from_str(yaml).map_err(|e| e.to_string())
    }

    fn size(yaml: &str) -> Result<Size, String> {
        serde_yaml::from_str(yaml).map_err(|e| e.to_string())
    }

    #[test]
    fn duration_without_a_unit_is_rejected() {
        assert_eq!(period("5s"), Ok(Period::seconds(5)));
        assert_eq!(period("1m 30s"), Ok(Period::seconds(90)));
        assert_eq!(period("250ms"), Ok(Period(Duration::from_millis(250))));
        assert_eq!(period("0"), Ok(Period(Duration::ZERO)));
        assert!(period("20").unwrap_err().contains("write 20s for seconds"));
        assert!(period("5 parsecs").unwrap_err().contains("is not a duration"));
        assert!(period("-1s").is_err());
        assert!(period("[1]").is_err());
    }

    #[test]
    fn percentage_needs_its_sign_and_is_at_most_100() {
        let read = |text: &str| text.parse::<Percent>().map(Percent::share);
        assert_eq!((read("5%"), read("0.5 %"), read("100%")), (Ok(0.05), Ok(0.005), Ok(1.0)));
        for text in ["5", "", "%", "-1%", "101%", "NaN%", "x%"] {
            assert_eq!(read(text).unwrap_err(), format!("`{text}` is not a percentage; write for example 5%"));
        }
        assert_eq!(serde_yaml::from_str::<Percent>("0.5%").unwrap().to_string(), "0.5%");
    }

    #[test]
    fn zone_has_the_characters_and_length_of_a_label_value() {
        for text in ["a", "eu-west-1a", "rack_12.row-3", "1", &"z".repeat(63)] {
            assert_eq!(text.parse::<Zone>().unwrap().as_str(), text);
        }
        for text in ["", "-a", "a-", "a b", "a/b", "zürich", "a\n", &"z".repeat(64)] {
            assert!(text.parse::<Zone>().unwrap_err().contains("is not the name of a zone"), "{text:?}");
        }
        assert_eq!(serde_yaml::from_str::<Zone>("eu-west-1a").unwrap().to_string(), "eu-west-1a");
        assert!(serde_yaml::from_str::<Zone>("'a b'").is_err());
    }

    #[test]
    fn sizes_accept_binary_and_decimal_units() {
        assert_eq!(size("512"), Ok(Size(512)));
        assert_eq!(size("32KiB"), Ok(Size::kib(32)));
        assert_eq!(size("100MiB"), Ok(Size::mib(100)));
        assert_eq!(size("1 GB"), Ok(Size(1_000_000_000)));
        assert!(size("lots").is_err());
        assert!(size("99999999999GiB").is_err(), "an overflow is rejected");
    }

    #[test]
    fn displayed_values_can_be_parsed_again() {
        for text in ["32KiB", "100MiB", "1023B"] {
            assert_eq!(size(text).unwrap().to_string(), text);
        }
        assert_eq!(Period::seconds(90).to_string(), "1m 30s");
    }
}
