//! What a change of the configuration would do, before anybody does it: in words, and to the requests of
//! the last while.
//!
//! The requests are decided anew, once by the configuration in force and once by the new one, by the very
//! function that serves traffic ([`crate::decision::decide`]). That is a pure function of two snapshots and
//! what was noted: no request is sent, no limit counts, nothing waits.
//!
//! - [`changes`]: what is different, by name; [`details`]: the same in sentences.
//! - [`replay`]: the requests, decided twice; [`side`]: how one configuration decides them.
//!
//! # What is said, and how sure it is
//!
//! - **Pools.** Where a route has several pools, chance decides by their shares, and what is compared is the
//!   chance: from 95:5 to 90:10, five of a hundred requests move, no particular ones. A client that is bound
//!   counts as what it is: by its address, header or cookie if `recent_requests.headers` has it, and by our own
//!   cookie as it was told when the request came.
//! - **Limits** are counted from the first of the requests on, at the times at which they came, for both
//!   configurations alike. What clients had used before that is not known, so a long window is judged too
//!   mildly.
//! - **Not replayed**: what is not remembered, such as sizes of headers; who a client is by other
//!   `trusted_proxies`; other listeners. [`replay::Replay::notes`] says so where it matters.

pub mod changes;
pub mod details;
pub mod replay;
pub mod side;
#[cfg(test)]
mod replay_tests;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use changes::Changes;
use replay::Replay;

/// What a new configuration would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// What is different, by name.
    pub changes: Changes,
    /// What is different, a sentence each.
    pub details: Vec<String>,
    /// What becomes of the requests of the last while.
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
