//! The `retry:` block of a route.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::policy::{AttemptOutcome, Policy, RetryableMethods};
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::http::grpc_status::GrpcStatus;

/// The largest number of attempts. If two retries fail, a third one will hardly succeed, and costs time and
/// work.
const ATTEMPTS_MAX: usize = 3;

/// Configuration of retries.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The largest number of attempts per request, 1 to 3.
    pub attempts: usize,
    /// The failures that are retried.
    pub on: Vec<AttemptOutcome>,
    /// The methods that are retried even if a backend may have processed the request.
    pub methods: RetryableMethods,
    /// Whether an `Idempotency-Key` makes a request idempotent.
    pub idempotency_key: bool,
    /// Time since the arrival of the request after which no retry starts.
    pub total: Period,
}

impl Default for Config {
    fn default() -> Self {
        let statuses = [500, 502, 503, 504].map(AttemptOutcome::Status);
        let on = [
            AttemptOutcome::Connect,
            AttemptOutcome::Reset,
            AttemptOutcome::RefusedStream,
            AttemptOutcome::Unresponsive,
        ]
        .into_iter()
        .chain(statuses);
        Self {
            attempts: ATTEMPTS_MAX,
            on: on.collect(),
            methods: RetryableMethods::Idempotent,
            idempotency_key: false,
            total: Period::seconds(10),
        }
    }
}

impl Config {
    /// Checks the block.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Policy {
        if !(1..=ATTEMPTS_MAX).contains(&self.attempts) {
            let problem = format!("{} is not between 1 and {ATTEMPTS_MAX}", self.attempts);
            faults.add(place.key("attempts"), problem, "1 means no retries; 3 means two retries");
        }
        if self.on.is_empty() {
            faults.add(place.key("on"), "no failure would be retried", "write `attempts: 1` for no retries");
        }
        for (index, condition) in self.on.iter().enumerate() {
            if let AttemptOutcome::Status(status) = condition
                && !(400..=599).contains(status)
            {
                let problem = format!("{status} is not the status code of a failure");
                faults.add(place.key("on").index(index), problem, "status codes of failures are 400 to 599");
            }
        }
        if self.total.0 == Duration::ZERO {
            faults.add(place.key("total"), "must be greater than zero", "write for example 10s");
        }
        self.policy()
    }

    pub(super) fn policy(&self) -> Policy {
        Policy {
            attempts: self.attempts.min(ATTEMPTS_MAX),
            on: self.on.clone(),
            methods: self.methods,
            idempotency_key: self.idempotency_key,
            total: self.total.0,
        }
    }
}

/// The failures that have a name.
const NAMES: [&str; 10] = [
    "connect",
    "reset",
    "refused_stream",
    "timeout",
    "unresponsive",
    "grpc_cancelled",
    "grpc_deadline_exceeded",
    "grpc_internal",
    "grpc_resource_exhausted",
    "grpc_unavailable",
];

/// A name, or a status code.
impl AttemptOutcome {
    /// The failure of this name.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "connect" => Self::Connect,
            "reset" => Self::Reset,
            "refused_stream" => Self::RefusedStream,
            "timeout" => Self::Timeout,
            "unresponsive" => Self::Unresponsive,
            "grpc_cancelled" => Self::Grpc(GrpcStatus::CANCELLED),
            "grpc_deadline_exceeded" => Self::Grpc(GrpcStatus::DEADLINE_EXCEEDED),
            "grpc_internal" => Self::Grpc(GrpcStatus::INTERNAL),
            "grpc_resource_exhausted" => Self::Grpc(GrpcStatus::RESOURCE_EXHAUSTED),
            "grpc_unavailable" => Self::Grpc(GrpcStatus::UNAVAILABLE),
            _ => return None,
        })
    }
}

impl JsonSchema for AttemptOutcome {
    fn schema_name() -> Cow<'static, str> {
        "AttemptOutcome".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "enum": NAMES },
                { "type": "integer", "minimum": 400, "maximum": 599 },
            ]
        })
    }
}

impl<'de> Deserialize<'de> for AttemptOutcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FailureVisitor)
    }
}

struct FailureVisitor;

impl Visitor<'_> for FailureVisitor {
    type Value = AttemptOutcome;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} or a status such as 503", NAMES.join(", "))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<AttemptOutcome, E> {
        AttemptOutcome::named(word).ok_or_else(|| E::unknown_variant(word, &NAMES))
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<AttemptOutcome, E> {
        u16::try_from(status)
            .map(AttemptOutcome::Status)
            .map_err(|_| E::custom(format!("{status} is not a status code; write for example 503")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_maps_to_a_different_failure() {
        let failures: Vec<AttemptOutcome> = NAMES.iter().filter_map(|name| AttemptOutcome::named(name)).collect();
        assert_eq!(failures.len(), NAMES.len());
        assert!(failures.iter().enumerate().all(|(index, one)| !failures[..index].contains(one)));
    }
}
