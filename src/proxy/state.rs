//! The proxy of a worker: what its requests share.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::deadlines::Deadlines;
use crate::base::lifecycle::Lifecycle;
use crate::decision::snapshot::Snapshot;
use crate::observe::Observers;
use crate::observe::recent_requests::Recorder;

/// The proxy: reads the active snapshot, reports finished requests and records recent ones. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    pub(super) live: Arc<ArcSwap<Snapshot>>,
    pub(super) observers: Observers,
    pub(super) deadlines: Deadlines,
    pub(super) lifecycle: Lifecycle,
    pub(super) recorder: Recorder,
}

impl Proxy {
    /// A proxy over the active snapshot. Must be called inside the serving runtime, where the sweep of
    /// deadlines runs.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the epoch of the deadlines")]
    pub fn new(live: Arc<ArcSwap<Snapshot>>, observers: Observers, recorder: Recorder, lifecycle: Lifecycle) -> Self {
        let deadlines = Deadlines::new(Instant::now());
        tokio::spawn(deadlines.clone().sweep());
        Self { live, observers, deadlines, lifecycle, recorder }
    }
}
