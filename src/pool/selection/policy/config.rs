//! The `balance:` key: a name, or a block for policies with parameters.

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::base::fault::{Faults, Place};
use crate::pool::selection::key::KeySource;

/// The balancing policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// In order, as often as the weights say.
    RoundRobin,
    /// At random, with probabilities by weight.
    Random,
    /// Of two random backends, the one with fewer requests in flight.
    LeastRequests,
    /// Of two random backends, the one with the lower expected latency.
    #[default]
    PeakEwma,
    /// The same backend for the same key.
    ConsistentHash,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::LeastRequests => "least_requests",
            Self::PeakEwma => "peak_ewma",
            Self::ConsistentHash => "consistent_hash",
        })
    }
}

/// The source of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The client's address.
    ClientIp,
    /// A header.
    Header,
    /// A cookie.
    Cookie,
    /// The path.
    Path,
    /// A query parameter.
    Query,
}

/// Configuration of the balancing policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The policy.
    pub r#type: Type,
    /// The source of keys for `consistent_hash`.
    pub by: Option<By>,
    /// The name of the header, cookie or query parameter.
    pub name: Option<String>,
}

/// The checked balancing policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// The policy.
    pub r#type: Type,
    /// The source of keys; `None` for policies without keys.
    pub key: Option<KeySource>,
}

impl Config {
    /// Checks the block.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Spec {
        if self.r#type != Type::ConsistentHash {
            for (key, written) in [("by", self.by.is_some()), ("name", self.name.is_some())] {
                if written {
                    let hint = "write `type: consistent_hash`, or remove the key";
                    faults.add(place.key(key), format!("`{key}` is only valid for consistent_hash"), hint);
                }
            }
            return Spec { r#type: self.r#type, key: None };
        }
        let Some(by) = self.by else {
            let hint = "add `by: client_ip`, `path`, `header`, `cookie` or `query`; the last three with a `name`";
            faults.add(place.clone(), "consistent_hash needs a key source", hint);
            return Spec { r#type: self.r#type, key: None };
        };
        Spec { r#type: self.r#type, key: self.key(by, place, faults) }
    }

    fn key(&self, by: By, place: &Place, faults: &mut Faults) -> Option<KeySource> {
        let name = self.name.clone().unwrap_or_default();
        match by {
            By::ClientIp | By::Path if self.name.is_some() => {
                faults.add(place.key("name"), "client_ip and path have no name", "remove the key");
                None
            }
            By::ClientIp => Some(KeySource::ClientIp),
            By::Path => Some(KeySource::Path),
            By::Header | By::Cookie | By::Query if name.is_empty() => {
                let problem = "header, cookie and query need a `name`";
                faults.add(place.clone(), problem, "add for example `name: x-user`");
                None
            }
            By::Header => HeaderName::try_from(&name).map(KeySource::Header).ok().or_else(|| {
                faults.add(place.key("name"), format!("`{name}` is not a header name"), "write for example x-user");
                None
            }),
            By::Cookie | By::Query if name.bytes().any(|b| b.is_ascii_control() || b"=;& ,\"".contains(&b)) => {
                faults.add(
                    place.key("name"),
                    format!("`{name}` is not the name of a cookie or query parameter"),
                    "write for example sid",
                );
                None
            }
            By::Cookie => Some(KeySource::Cookie(name)),
            By::Query => Some(KeySource::Query(name)),
        }
    }
}

/// The block form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Block {
    r#type: Type,
    #[serde(default)]
    by: Option<By>,
    #[serde(default)]
    name: Option<String>,
}

impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "Config".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [generator.subschema_for::<Type>(), generator.subschema_for::<Block>()] })
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ConfigVisitor)
    }
}

struct ConfigVisitor;

impl<'de> Visitor<'de> for ConfigVisitor {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a policy such as round_robin, or a block with its `type`")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Config, E> {
        Ok(Config { r#type: Type::deserialize(word.into_deserializer())?, by: None, name: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Config, A::Error> {
        let block = Block::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Config { r#type: block.r#type, by: block.by, name: block.name })
    }
}
