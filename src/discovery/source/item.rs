//! A backend as users write it, in a file or in a value of a key: an address, or a block with settings.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IntoDeserializer, MapAccess, Visitor};

use super::{Found, WEIGHT_MAX};
use crate::base::backend_address::{BackendAddress, NotAnAddress};
use crate::base::units::Zone;
use crate::discovery::labels::Labels;
use crate::discovery::target::Target;

/// A backend with its settings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// The address.
    pub(super) target: Target,
    settings: Settings,
}

/// The long form of an item.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Block {
    address: Option<AnyAddress>,
    #[serde(default = "one", deserialize_with = "weight")]
    weight: u32,
    #[serde(default)]
    backup: bool,
    #[serde(default)]
    drain: bool,
    #[serde(default)]
    zone: Option<Zone>,
    #[serde(default)]
    labels: Labels,
}

/// The settings of a backend.
#[derive(Clone, Debug, PartialEq)]
struct Settings {
    weight: u32,
    backup: bool,
    drain: bool,
    zone: Option<Zone>,
    labels: Labels,
}

impl Item {
    /// A primary backend with weight 1.
    pub(super) fn at(target: Target) -> Self {
        let settings = Settings { weight: 1, backup: false, drain: false, zone: None, labels: Labels::default() };
        Self { target, settings }
    }

    /// One backend for each of `addresses`.
    pub(super) fn found(&self, addresses: Vec<BackendAddress>) -> impl Iterator<Item = Found> + '_ {
        let Settings { weight, backup, drain, zone, labels } = &self.settings;
        let (weight, backup, drain) = (*weight, *backup, *drain);
        let found = move |address| Found { address, weight, backup, drain, zone: zone.clone(), labels: labels.clone() };
        addresses.into_iter().map(found)
    }
}

impl Block {
    /// The backend. Its address is `default` unless the block has one.
    pub(super) fn item<E>(self, default: impl FnOnce() -> Result<Target, E>) -> Result<Item, E> {
        let Self { address, weight, backup, drain, zone, labels } = self;
        let target = address.map_or_else(default, |AnyAddress(target)| Ok(target))?;
        Ok(Item { target, settings: Settings { weight, backup, drain, zone, labels } })
    }
}

fn one() -> u32 {
    1
}

fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        weight if weight > WEIGHT_MAX => {
            Err(D::Error::custom(format!("the weight {weight} is more than {WEIGHT_MAX}")))
        }
        weight => Ok(weight),
    }
}

/// An address, as a text.
struct AnyAddress(Target);

impl<'de> Deserialize<'de> for AnyAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|e: NotAnAddress| D::Error::custom(format!("{}; {}", e.problem, e.hint)))
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

/// Reads both forms of an item. Unlike an untagged enum it keeps the line and column of a fault.
struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as 10.0.0.7:8080, or a block with `address`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
        let AnyAddress(target) = AnyAddress::deserialize(text.into_deserializer())?;
        Ok(Item::at(target))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
        let block = Block::deserialize(MapAccessDeserializer::new(map))?;
        block.item(|| Err(A::Error::missing_field("address")))
    }
}
