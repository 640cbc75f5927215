//! Overrides in the form in which they outlast the process, and those whose backends are not known yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::units::PoolName;
use crate::pool::endpoint::Endpoint;
use crate::pool::operator::overrides::{Change, ConfiguredSettings, Override};

/// An override and its backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedOverride {
    /// The pool of the backend.
    pub pool: PoolName,
    /// The backend.
    pub backend: BackendAddress,
    /// The configured settings of the backend. The override applies as long as they stay.
    pub configured: ConfiguredSettings,
    /// The override.
    #[serde(rename = "override")]
    pub overridden: Override,
}

/// Restored overrides of backends that discovery has not found yet. Cheap to clone; all clones share them.
#[derive(Clone, Default)]
pub(in crate::pool) struct Pending(Arc<Mutex<HashMap<BackendAddress, SavedOverride>>>);

impl Pending {
    /// Keeps an override until its backend is found.
    pub(in crate::pool) fn add(&self, saved: SavedOverride) {
        self.0.lock().insert(saved.backend, saved);
    }

    /// The overrides of backends that were not found yet.
    pub(in crate::pool) fn all(&self) -> Vec<SavedOverride> {
        self.0.lock().values().cloned().collect()
    }

    /// Applies the override of `endpoint`, if there is one and the configured settings are still the same.
    pub(in crate::pool) fn apply_to(&self, endpoint: &Endpoint, now: Instant) {
        let Some(saved) = self.0.lock().remove(&endpoint.address()) else { return };
        let (pool, backend) = (saved.pool, saved.backend);
        if endpoint.configured() != saved.configured {
            return Event::OverrideEnded { pool, backend }.announce();
        }
        let Override { state, weight, since } = saved.overridden;
        for change in [state.map(Change::State), weight.map(Change::Weight)].into_iter().flatten() {
            endpoint.change(change, since, now);
        }
        let (state, weight) = (endpoint.state().to_string(), endpoint.weight());
        Event::BackendOverridden { pool, backend, state, weight }.announce();
    }
}
