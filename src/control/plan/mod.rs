//! The plan: what a new configuration would change, as text and for recent requests, before it is active.
//!
//! Each request is decided twice, with the active and with the new configuration, by the function that serves
//! traffic ([`crate::decision::decide`]). It is a pure function of two snapshots and the recorded requests: no
//! request is sent and no limit counts.
//!
//! - [`changes`]: the differences by name; [`details`]: as sentences; [`discovered`]: what they do to the
//!   backends that sources have found.
//! - [`replay`]: recent requests decided twice; [`replay_side`]: the decisions of one configuration.
//!
//! # Accuracy
//!
//! - **Pools.** Where a route has several pools, chance decides by their shares, and what is compared is the
//!   chance: from 95:5 to 90:10, five of a hundred requests move, no particular ones. A client that is bound
//!   counts as what it is: by its address, header or cookie if `recent_requests.headers` has it, and by our own
//!   cookie as it was decrypted when the request came.
//! - **Limits** count from the first recorded request, at the recorded times, for both configurations. Earlier
//!   usage is unknown, so long windows are too lenient.
//! - **Not replayed**: anything that is not recorded, such as header sizes; the client address under other
//!   `trusted_proxies`; other listeners. [`replay::Replay::notes`] mentions it where it matters.

mod changed_keys;
pub mod changes;
pub mod details;
pub mod discovered;
pub mod replay;
pub mod replay_side;
#[cfg(test)]
mod replay_tests;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use changes::Changes;
use replay::Replay;

/// What a new configuration would change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The differences by name.
    pub changes: Changes,
    /// The differences as sentences.
    pub details: Vec<String>,
    /// The outcome of recent requests.
    pub replay: Replay,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "changes")?;
        if self.details.is_empty() {
            writeln!(f, "  none")?;
        }
        for detail in &self.details {
            writeln!(f, "  {detail}")?;
        }
        self.replay.fmt(f)
    }
}
