//! The `rate_limit:` block.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;

use super::spec::{Algorithm, Spec};
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;

/// The algorithm of a rate limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// No limit.
    #[default]
    None,
    /// A number of requests in each window; windows are aligned.
    FixedWindow,
    /// A number of requests in any window.
    SlidingWindow,
    /// A bucket that refills steadily and allows a burst.
    TokenBucket,
}

/// Configuration of a rate limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The algorithm; without it there is no limit.
    pub r#type: Option<Type>,
    /// Requests per window.
    pub limit: Option<u32>,
    /// The length of the window.
    pub window: Option<Period>,
    /// The capacity of a token bucket; default: `limit`.
    pub burst: Option<u32>,
}

impl Config {
    /// Checks the block; `None` if there is no limit.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        let algorithm = match self.r#type.unwrap_or_default() {
            Type::None => {
                self.reject_parameters_without_type(place, faults);
                return None;
            }
            Type::FixedWindow => Algorithm::FixedWindow,
            Type::SlidingWindow => Algorithm::SlidingWindow,
            Type::TokenBucket => Algorithm::TokenBucket,
        };
        if self.burst.is_some() && algorithm != Algorithm::TokenBucket {
            faults.add(
                place.key("burst"),
                "`burst` is only valid for a token bucket",
                "write `type: token_bucket`, or remove the key",
            );
        }
        let limit = positive(self.limit, "limit", place, faults);
        let burst = self.burst.map_or(limit, |burst| positive(Some(burst), "burst", place, faults));
        let window = self.window.filter(|window| !window.0.is_zero());
        if window.is_none() {
            faults.add(
                place.key("window"),
                "a limit needs a window greater than zero",
                "write for example `window: 1m`",
            );
        }
        Some(Spec { algorithm, limit: limit?, window: window?.0, burst: burst? })
    }

    /// Reports numbers without a type, which would have no effect. With `type: none` they are allowed, to
    /// switch a limit off.
    fn reject_parameters_without_type(&self, place: &Place, faults: &mut Faults) {
        let configured = self.limit.is_some() || self.window.is_some() || self.burst.is_some();
        if self.r#type.is_none() && configured {
            let hint = "add `type: fixed_window`, `sliding_window`, `token_bucket` or `none`";
            faults.add(place.clone(), "the limit has no `type`, so it has no effect", hint);
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
