//! Size limits of requests: header, target and body.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::Size;

/// Configuration of request limits.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The whole header in bytes: target, names and values. Exceeding it gives 431.
    pub header_size: Size,
    /// The number of header fields. Exceeding it gives 431.
    pub header_count: u32,
    /// The request target in bytes. Exceeding it gives 414.
    pub target_size: Size,
    /// The body in bytes. Exceeding it gives 413. A route may override it.
    pub body_size: Size,
}

impl Default for Config {
    fn default() -> Self {
        Self { header_size: Size::kib(32), header_count: 128, target_size: Size::kib(8), body_size: Size::mib(100) }
    }
}

/// The checked limits, in bytes and fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of the whole header.
    pub header_size: u64,
    /// Header fields.
    pub header_count: usize,
    /// Bytes of the request target.
    pub target_size: u64,
    /// Bytes of the body.
    pub body_size: u64,
}

/// The limits of Pingora and the http crate. Beyond them they would reject requests without an access log line.
const HEADER_SIZE_MAX: u64 = 1_048_575;
const HEADER_COUNT_MAX: u32 = 256;
const TARGET_SIZE_MAX: u64 = 65_534;

impl Config {
    /// Checks the block.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> RequestLimits {
        for (key, given, most) in [
            ("header_size", self.header_size.0, HEADER_SIZE_MAX),
            ("header_count", self.header_count.into(), HEADER_COUNT_MAX.into()),
            ("target_size", self.target_size.0, TARGET_SIZE_MAX),
        ] {
            if given > most {
                faults.add(place.key(key), format!("the maximum is {most}"), "lower it");
            }
        }
        RequestLimits {
            header_size: self.header_size.0,
            // u32 fits into usize wherever this runs.
            header_count: self.header_count as usize,
            target_size: self.target_size.0,
            body_size: self.body_size.0,
        }
    }
}
