//! The health of a backend as health checks see it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The health of a backend by its health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Health {
    /// No check has finished yet; the backend gets no requests.
    Unknown = 0,
    /// Healthy: it may get requests.
    Up = 1,
    /// Unhealthy: it gets no requests.
    Down = 2,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "not checked yet",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}
