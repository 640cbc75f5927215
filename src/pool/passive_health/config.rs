//! The `passive_health:` block of a pool: `off`, or the values that differ from their defaults.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::base::fault::{Faults, Place};
use crate::base::units::Period;

/// The checked parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Consecutive failures that eject a backend.
    pub consecutive_failures: u32,
    /// The length of a window.
    pub window: Duration,
    /// Responses that a window needs; until then it continues.
    pub minimum_requests: u32,
    /// The ratio to the latency of the pool from which a backend counts as slow.
    pub slow_factor: f64,
    /// Consecutive slow windows that eject a backend.
    pub slow_windows: u32,
    /// The duration of the first ejection.
    pub ejection_time: Duration,
    /// The longest ejection.
    pub max_ejection_time: Duration,
    /// The largest percentage of ejected backends in a pool.
    pub max_ejected_percent: u32,
}

/// The `passive_health:` block.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// Passive health is off.
    Off,
    /// Passive health is on with these parameters.
    On(Config),
}

impl Default for Setting {
    fn default() -> Self {
        Self::On(Config::default())
    }
}

impl JsonSchema for Setting {
    fn schema_name() -> Cow<'static, str> {
        "Setting".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "off" }, generator.subschema_for::<Config>()] })
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SettingVisitor)
    }
}

struct SettingVisitor;

impl<'de> Visitor<'de> for SettingVisitor {
    type Value = Setting;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`off`, or a block of the keys that differ from the defaults")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Setting, E> {
        match text {
            "off" => Ok(Setting::Off),
            other => Err(E::custom(format!(
                "`{other}` is not `off`; write `off`, or a block of the keys that differ from the defaults"
            ))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Setting, A::Error> {
        Config::deserialize(de::value::MapAccessDeserializer::new(map)).map(Setting::On)
    }
}

/// The parameters.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Consecutive failures that eject a backend.
    pub consecutive_failures: u32,
    /// How often latency and success rates are compared.
    pub window: Period,
    /// Responses that a window needs before its latency is compared.
    pub minimum_requests: u32,
    /// The ratio to the median latency of the pool from which a backend counts as slow.
    pub slow_factor: f64,
    /// Consecutive slow windows that eject a backend.
    pub slow_windows: u32,
    /// The duration of the first ejection.
    pub ejection_time: Period,
    /// The longest ejection.
    pub max_ejection_time: Period,
    /// The largest percentage of ejected backends in a pool.
    pub max_ejected_percent: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            window: Period::seconds(1),
            minimum_requests: 10,
            slow_factor: 3.0,
            slow_windows: 3,
            ejection_time: Period::seconds(10),
            max_ejection_time: Period::seconds(300),
            max_ejected_percent: 50,
        }
    }
}

impl Setting {
    /// Checks the block; `None` if it is off.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        let Self::On(config) = self else { return None };
        let counts = [
            ("consecutive_failures", config.consecutive_failures),
            ("minimum_requests", config.minimum_requests),
            ("slow_windows", config.slow_windows),
        ];
        for (key, _) in counts.into_iter().filter(|(_, count)| *count == 0) {
            faults.add(place.key(key), "must be at least 1", "remove the key to use the default");
        }
        for (key, period) in [("window", config.window), ("ejection_time", config.ejection_time)] {
            if period.0.is_zero() {
                faults.add(place.key(key), "must be greater than zero", "write for example 10s");
            }
        }
        if config.max_ejection_time < config.ejection_time {
            let problem = format!(
                "ejection_time, {}, is longer than max_ejection_time, {}",
                config.ejection_time, config.max_ejection_time
            );
            faults.add(place.clone(), problem, "increase max_ejection_time");
        }
        // Also rejects NaN.
        if !(1.5..=1000.0).contains(&config.slow_factor) {
            let problem = format!("{} is not between 1.5 and 1000", config.slow_factor);
            faults.add(place.key("slow_factor"), problem, "below 1.5 healthy backends would be ejected");
        }
        if !(1..=50).contains(&config.max_ejected_percent) {
            let problem = format!("{} is not between 1 and 50", config.max_ejected_percent);
            faults.add(
                place.key("max_ejected_percent"),
                problem,
                "more than half of a pool cannot be outliers; to turn it off write `passive_health: off`",
            );
        }
        Some(Spec {
            consecutive_failures: config.consecutive_failures.max(1),
            window: config.window.0,
            minimum_requests: config.minimum_requests,
            slow_factor: config.slow_factor,
            slow_windows: config.slow_windows,
            ejection_time: config.ejection_time.0,
            max_ejection_time: config.max_ejection_time.0,
            max_ejected_percent: config.max_ejected_percent,
        })
    }
}
