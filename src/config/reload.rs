//! The `reload:` block: when the file is reloaded, and how much a reload may change.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::Percent;
use crate::observe::recent_requests;

/// Configuration of reloads.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether the file is reloaded when it changes; otherwise only on request.
    pub watch: bool,
    /// The largest share of recent requests that a reload may move to another backend or outcome; default: no
    /// limit.
    pub max_moved: Option<Percent>,
}

impl Default for Config {
    fn default() -> Self {
        Self { watch: true, max_moved: None }
    }
}

impl Config {
    /// Checks the block: without recent requests their share cannot be computed.
    pub(super) fn check(&self, recent_requests: &recent_requests::Config, place: &Place, faults: &mut Faults) {
        if self.max_moved.is_some() && recent_requests.count == 0 {
            let problem = "no recent requests are kept, so moved requests cannot be counted";
            faults.add(place.key("max_moved"), problem, "set `recent_requests.count`, or remove this key");
        }
    }
}
