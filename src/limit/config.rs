//! The `rate_limit:` block, as written and checked.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Algorithm, Spec};
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;

/// The kind of limit, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// No limit.
    #[default]
    None,
    /// So many requests in each window; windows are aligned.
    FixedWindow,
    /// So many requests in any window, whenever it begins.
    SlidingWindow,
    /// A bucket that fills steadily and holds a burst.
    TokenBucket,
}

/// The `rate_limit:` block, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The kind of limit; none where the whole block is left out.
    pub r#type: Option<Type>,
    /// Requests for each window.
    pub limit: Option<u32>,
    /// The length of the window.
    pub window: Option<Period>,
    /// What a token bucket holds; `limit` unless told.
    pub burst: Option<u32>,
}

impl Config {
    /// Proves the block consistent; `None` where it is off.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        let algorithm = match self.r#type.unwrap_or_default() {
            Type::None => {
                self.refuse_orphans(place, faults);
                return None;
            }
            Type::FixedWindow => Algorithm::FixedWindow,
            Type::SlidingWindow => Algorithm::SlidingWindow,
            Type::TokenBucket => Algorithm::TokenBucket,
        };
        if self.burst.is_some() && algorithm != Algorithm::TokenBucket {
            faults.add(
                place.key("burst"),
                "only a token bucket has a burst",
                "write `type: token_bucket`, or remove the key",
            );
        }
        let limit = positive(self.limit, "limit", place, faults);
        let burst = self.burst.map_or(limit, |burst| positive(Some(burst), "burst", place, faults));
        let window = self.window.filter(|window| !window.0.is_zero());
        if window.is_none() {
            faults.add(
                place.key("window"),
                "a limit needs a window longer than nothing",
                "write for example `window: 1m`",
            );
        }
        Some(Spec { algorithm, limit: limit?, window: window?.0, burst: burst? })
    }

    /// Numbers without a type would silently do nothing. With `type: none` in sight they are a fair
    /// way to switch a limit off.
    fn refuse_orphans(&self, place: &Place, faults: &mut Faults) {
        let written = self.limit.is_some() || self.window.is_some() || self.burst.is_some();
        if self.r#type.is_none() && written {
            let hint = "add `type: fixed_window`, `sliding_window`, `token_bucket` or `none`";
            faults.add(place.clone(), "the limit has no `type`, so it does nothing", hint);
        }
    }
}

fn positive(value: Option<u32>, key: &str, place: &Place, faults: &mut Faults) -> Option<NonZeroU32> {
    let positive = value.and_then(NonZeroU32::new);
    if positive.is_none() {
        faults.add(place.key(key), format!("`{key}` must be at least 1"), format!("write for example `{key}: 100`"));
    }
    positive
}
