//! The `reload:` block: when the file is read anew.

use schemars::JsonSchema;
use serde::Deserialize;

/// The block, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether the file is read anew when it changes; else only when told.
    pub watch: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { watch: true }
    }
}
