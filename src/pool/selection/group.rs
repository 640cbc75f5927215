//! Primary backends, and backups that take traffic only when too few primaries are available.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// How many primary backends must be available. Below it, backups take traffic too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// A number of backends.
    Count(usize),
    /// A percentage of the primary backends, rounded up.
    Percent(usize),
}

impl Default for Threshold {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl Threshold {
    /// The threshold as a number of backends, in a pool with `all` primary backends.
    #[must_use]
    pub fn of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (all * percent).div_ceil(100).max(1),
        }
    }
}

impl JsonSchema for Threshold {
    fn schema_name() -> Cow<'static, str> {
        "Threshold".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^(100|[1-9]?[0-9])%$" }]
        })
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ThresholdVisitor)
    }
}

struct ThresholdVisitor;

impl Visitor<'_> for ThresholdVisitor {
    type Value = Threshold;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of backends such as 2, or a percentage such as \"50%\"")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<Threshold, E> {
        usize::try_from(count).map(Threshold::Count).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Threshold, E> {
        let percent = text.strip_suffix('%').and_then(|digits| digits.parse().ok());
        percent.filter(|percent| (1..=100).contains(percent)).map(Threshold::Percent).ok_or_else(|| {
            E::custom(format!("`{text}` is not a threshold; write a number such as 2, or a percentage from 1% to 100%"))
        })
    }
}
