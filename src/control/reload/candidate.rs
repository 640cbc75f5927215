//! A configuration that may come into force: proved, built, tested, and tried out where somebody asks.

use std::sync::Arc;
use std::time::Instant;

use super::Live;
use crate::base::units::Percent;
use crate::config::diagnostic::{Diagnostic, Severity, Source};
use crate::config::load::Loaded;
use crate::config::{Checked, Config};
use crate::control::plan::Plan;
use crate::control::plan::changes::Changes;
use crate::control::plan::details::details;
use crate::control::plan::replay::{Replay, percent, replay};
use crate::decision::expectations;
use crate::decision::snapshot::Snapshot;
use crate::observe::recent_requests::RecentRequests;

/// Built, and nothing of it runs yet.
pub(super) struct Candidate {
    pub(super) checked: Checked,
    pub(super) source: Source,
    pub(super) changes: Changes,
    pub(super) snapshot: Arc<Snapshot>,
    /// What is in force.
    before: Arc<Snapshot>,
}

impl Candidate {
    /// Builds it in the place of `current`, in a process that was started with `started`.
    ///
    /// # Errors
    /// In words, where it cannot be built; and, inside, its tests that fail.
    pub(super) fn new(
        Loaded { checked, source }: Loaded,
        (current, started): (&Checked, &Config),
        live: &Live,
        now: Instant,
    ) -> Result<Result<Self, Vec<Diagnostic>>, String> {
        let changes = Changes::between(current, &checked, started);
        let before = live.snapshot.load_full();
        let snapshot = Arc::new(Snapshot::build(&checked, Some(&before), now)?);
        let failed = expectations::failures(&checked, &snapshot);
        Ok(match failed.is_empty() {
            true => Ok(Self { checked, source, changes, snapshot, before }),
            false => Err(source.diagnostics(Severity::Error, failed)),
        })
    }

    /// Tries it out with the requests of the last while, on a thread for what takes its time.
    ///
    /// # Errors
    /// In words, where the thread could not do it.
    pub(super) async fn plan(
        &self,
        current: &Checked,
        recent: &Arc<RecentRequests>,
        now: Instant,
    ) -> Result<Plan, String> {
        let (before, after, recent) = (Arc::clone(&self.before), Arc::clone(&self.snapshot), Arc::clone(recent));
        let replayed = tokio::task::spawn_blocking(move || try_out(&before, &after, &recent, now));
        Ok(Plan {
            changes: self.changes.clone(),
            details: details(current, &self.checked, &self.changes),
            replay: replayed.await.map_err(|e| e.to_string())?,
        })
    }
}

fn try_out(before: &Snapshot, after: &Snapshot, recent: &RecentRequests, now: Instant) -> Replay {
    let recent = recent.recent(before.recent_requests.count);
    replay(before, after, recent.iter(), now)
}

/// Why a plan moves more than it may.
pub(super) fn too_much(plan: &Plan, most: Percent) -> Option<String> {
    let Replay { moved, requests, .. } = &plan.replay;
    (*moved > most.share())
        .then(|| format!("{} of the last {requests} requests would end elsewhere, more than {most}", percent(*moved)))
}
