//! How large a request may be before it is refused: header, target and body.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::Size;

/// The `request_limits:` block, as written.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The header in all: target, names and values. Beyond it 431.
    pub header_size: Size,
    /// The number of header fields. Beyond it 431.
    pub header_count: u32,
    /// The request target. Beyond it 414.
    pub target_size: Size,
    /// The body. Beyond it 413. A route may say otherwise.
    pub body_size: Size,
}

impl Default for Config {
    fn default() -> Self {
        Self { header_size: Size::kib(32), header_count: 128, target_size: Size::kib(8), body_size: Size::mib(100) }
    }
}

/// The limits, in bytes and fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of the header in all.
    pub header_size: u64,
    /// Header fields.
    pub header_count: usize,
    /// Bytes of the request target.
    pub target_size: u64,
    /// Bytes of the body.
    pub body_size: u64,
}

/// What Pingora and the http crate can read at most. Beyond it they would refuse requests that the
/// listener took, with no line in the access log.
const HEADER_SIZE_MAX: u64 = 1_048_575;
const HEADER_COUNT_MAX: u32 = 256;
const TARGET_SIZE_MAX: u64 = 65_534;

impl Config {
    /// Refuses limits beyond what can be read.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> RequestLimits {
        for (key, given, most) in [
            ("header_size", self.header_size.0, HEADER_SIZE_MAX),
            ("header_count", self.header_count.into(), HEADER_COUNT_MAX.into()),
            ("target_size", self.target_size.0, TARGET_SIZE_MAX),
        ] {
            if given > most {
                faults.add(place.key(key), format!("more than {most} cannot be read"), "lower it");
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
