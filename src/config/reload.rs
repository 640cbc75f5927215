//! The `reload:` block: when the file is read anew, and how much it may change at once.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::Percent;
use crate::observe::recent_requests;

/// The block, as written.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether the file is read anew when it changes; else only when told.
    pub watch: bool,
    /// The part of the requests of the last while that may end elsewhere; any unless told.
    pub max_moved: Option<Percent>,
}

impl Default for Config {
    fn default() -> Self {
        Self { watch: true, max_moved: None }
    }
}

impl Config {
    /// Without requests that are remembered, nobody can tell how many would move.
    pub(super) fn check(&self, recent_requests: &recent_requests::Config, place: &Place, faults: &mut Faults) {
        if self.max_moved.is_some() && recent_requests.count == 0 {
            let problem = "no request is remembered that could be seen to move";
            faults.add(place.key("max_moved"), problem, "give `recent_requests.count` a number, or remove this key");
        }
    }
}
