//! `pool:` of a route: one pool, or several with their shares of the traffic.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::base::fault::{Faults, Place, nearest};
use crate::base::units::PoolName;
use crate::pool;

/// The largest weight, as with backends.
const WEIGHT_MAX: u32 = 1000;

/// Pools with their weights.
#[derive(Clone, Debug, PartialEq)]
pub enum Shares {
    /// One pool gets all requests.
    One(PoolName),
    /// Several pools by weight.
    Several(BTreeMap<PoolName, u32>),
}

impl Shares {
    /// The pools with their weights.
    pub fn iter(&self) -> impl Iterator<Item = (&PoolName, u32)> {
        let (one, several) = match self {
            Self::One(name) => (Some((name, 1)), None),
            Self::Several(shares) => (None, Some(shares)),
        };
        one.into_iter().chain(several.into_iter().flatten().map(|(name, weight)| (name, *weight)))
    }

    /// Checks that the pools exist and that at least one has a share.
    pub(super) fn check(&self, place: &Place, pools: &BTreeMap<PoolName, pool::Spec>, faults: &mut Faults) {
        let place_of = |name: &PoolName| match self {
            Self::One(_) => place.clone(),
            Self::Several(_) => place.key(name.as_str()),
        };
        for (name, weight) in self.iter() {
            if !pools.contains_key(name) {
                let (problem, hint) = unknown_pool(name.as_str(), pools.keys().map(PoolName::as_str));
                faults.add(place_of(name), problem, hint);
            }
            if weight > WEIGHT_MAX {
                let problem = format!("{weight} is more than {WEIGHT_MAX}");
                faults.add(place_of(name), problem, "shares are relative: divide all of them by the same number");
            }
        }
        if self.iter().all(|(_, weight)| weight == 0) {
            faults.add(place.clone(), "no pool has a share", "give at least one a share of 1 or more");
        }
    }
}

/// The problem with a pool that is not among the `known` ones, and the hint.
pub(super) fn unknown_pool<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> (String, String) {
    let hint = match nearest(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("define it under `pools`; known: {}", known.collect::<Vec<_>>().join(", ")),
    };
    (format!("there is no pool `{name}`"), hint)
}

impl JsonSchema for Shares {
    fn schema_name() -> Cow<'static, str> {
        "Shares".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let weight = json_schema!({ "type": "integer", "minimum": 0, "maximum": WEIGHT_MAX });
        json_schema!({
            "anyOf": [{ "type": "string" }, { "type": "object", "minProperties": 1, "additionalProperties": weight }]
        })
    }
}

impl<'de> Deserialize<'de> for Shares {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SharesVisitor)
    }
}

struct SharesVisitor;

impl<'de> Visitor<'de> for SharesVisitor {
    type Value = Shares;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a pool, or several with their shares, such as { stable: 95, canary: 5 }")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Shares, E> {
        Ok(Shares::One(name.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Shares, A::Error> {
        BTreeMap::deserialize(de::value::MapAccessDeserializer::new(map)).map(Shares::Several)
    }
}
