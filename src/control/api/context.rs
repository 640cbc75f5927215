//! The state that endpoints use.

use super::problem::{Cause, Problem};
use crate::base::lifecycle::Phase;
use crate::control::reload::{ReloadHandle, RuntimeState};
use crate::observe::OperatorLog;

/// The state that endpoints use. Cheap to clone; all clones share it.
#[derive(Clone)]
pub struct Api {
    /// Requests reloads; `None` if the configuration came from no file.
    pub reload_handle: Option<ReloadHandle>,
    /// The active configuration.
    pub live: RuntimeState,
    /// The operator log.
    pub log: OperatorLog,
}

impl Api {
    /// The handle to request reloads.
    pub(super) fn reload_handle(&self) -> Result<&ReloadHandle, Problem> {
        self.reload_handle.as_ref().ok_or_else(|| Problem::new(Cause::NoFile, "the configuration came from no file"))
    }

    /// The problem for a failed operation.
    pub(super) fn failed(&self, why: String) -> Problem {
        Problem::new(if self.live.lifecycle.phase() > Phase::Ready { Cause::Draining } else { Cause::Failed }, why)
    }
}
