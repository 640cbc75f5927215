//! The health of a backend as health checks see it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What health checks say about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Health {
    /// No check has finished yet; such a backend is not used.
    Unknown = 0,
    /// It may take requests.
    Up = 1,
    /// It may not.
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
