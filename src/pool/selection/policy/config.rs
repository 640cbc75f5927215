//! The `balance:` key: the name of a policy, or a block for a policy with parameters.

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
    /// Backends in turn, each as often as its weight.
    RoundRobin,
    /// A random backend, with a probability proportional to its weight.
    Random,
    /// The backend with fewer requests in flight, of two random ones.
    LeastRequests,
    /// The backend with the lower expected latency, of two random ones.
    #[default]
    PeakEwma,
    /// The same backend for requests with the same key.
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

/// The part of a request that is its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyType {
    /// The client's address.
    ClientIp,
    /// The value of the header `name`.
    Header,
    /// The value of the cookie `name`.
    Cookie,
    /// The path.
    Path,
    /// The value of the query parameter `name`.
    Query,
}

/// Configuration of the balancing policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The policy.
    pub r#type: Type,
    /// The key of a request, for `consistent_hash`.
    pub by: Option<KeyType>,
    /// The name of the header, cookie or query parameter.
    pub name: Option<String>,
}

/// The checked balancing policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// The policy.
    pub r#type: Type,
    /// The source of request keys; `None` for policies without keys.
    pub key: Option<KeySource>,
}

impl Config {
    /// Checks the block.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Spec {
        if self.r#type != Type::ConsistentHash {
            for (key, is_set) in [("by", self.by.is_some()), ("name", self.name.is_some())] {
                if is_set {
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

    fn key(&self, by: KeyType, place: &Place, faults: &mut Faults) -> Option<KeySource> {
        let name = self.name.clone().unwrap_or_default();
        match by {
            KeyType::ClientIp | KeyType::Path if self.name.is_some() => {
                faults.add(place.key("name"), "client_ip and path have no name", "remove the key");
                None
            }
            KeyType::ClientIp => Some(KeySource::ClientIp),
            KeyType::Path => Some(KeySource::Path),
            KeyType::Header | KeyType::Cookie | KeyType::Query if name.is_empty() => {
                let problem = "header, cookie and query need a `name`";
                faults.add(place.clone(), problem, "add for example `name: x-user`");
                None
            }
            KeyType::Header => HeaderName::try_from(&name).map(KeySource::Header).ok().or_else(|| {
                faults.add(place.key("name"), format!("`{name}` is not a header name"), "write for example x-user");
                None
            }),
            KeyType::Cookie | KeyType::Query
                if name.bytes().any(|b| b.is_ascii_control() || b"=;& ,\"".contains(&b)) =>
            {
                faults.add(
                    place.key("name"),
                    format!("`{name}` is not the name of a cookie or query parameter"),
                    "write for example sid",
                );
                None
            }
            KeyType::Cookie => Some(KeySource::Cookie(name)),
            KeyType::Query => Some(KeySource::Query(name)),
        }
    }
}

/// The balancing policy as a block.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Block {
    /// The balancing policy.
    r#type: Type,
    /// The key of a request, for `consistent_hash`.
    #[serde(default)]
    by: Option<KeyType>,
    /// The name of the header, cookie or query parameter.
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
