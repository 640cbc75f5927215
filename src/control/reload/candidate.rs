//! A candidate configuration: checked, built, tested, and replayed on request.

use std::sync::Arc;
use std::time::Instant;

use super::runtime_state::RuntimeState;
use crate::base::units::Percent;
use crate::config::diagnostic::{Diagnostic, Severity, Source};
use crate::config::load::Loaded;
use crate::config::{Checked, Config};
use crate::control::plan::Plan;
use crate::control::plan::changes::Changes;
use crate::control::plan::details::details;
use crate::control::plan::discovered::discovered;
use crate::control::plan::replay::{Replay, percent, replay};
use crate::decision::expectations;
use crate::decision::snapshot::Snapshot;
use crate::observe::recent_requests::RecentRequests;

/// A built configuration; nothing of it runs yet.
pub(super) struct Candidate {
    pub(super) checked: Checked,
    pub(super) source: Source,
    pub(super) changes: Changes,
    pub(super) snapshot: Arc<Snapshot>,
    /// The active snapshot.
    before: Arc<Snapshot>,
}

impl Candidate {
    /// Builds the configuration that replaces `current`, in a process that was started with `started`.
    ///
    /// # Errors
    /// A message, if it cannot be built; inside, its failed tests.
    pub(super) fn new(
        Loaded { checked, source }: Loaded,
        (current, started): (&Checked, &Config),
        live: &RuntimeState,
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

    /// Replays recent requests, on a thread for blocking work.
    ///
    /// # Errors
    /// A message, if the thread failed.
    pub(super) async fn plan(
        &self,
        current: &Checked,
        recent: &Arc<RecentRequests>,
        now: Instant,
    ) -> Result<Plan, String> {
        let (before, after, recent) = (Arc::clone(&self.before), Arc::clone(&self.snapshot), Arc::clone(recent));
        let replayed = tokio::task::spawn_blocking(move || replay_recent(&before, &after, &recent, now));
        let mut details = details(current, &self.checked, &self.changes);
        details.extend(discovered(&self.before, &self.snapshot));
        Ok(Plan { changes: self.changes.clone(), details, replay: replayed.await.map_err(|e| e.to_string())? })
    }
}

fn replay_recent(before: &Snapshot, after: &Snapshot, recent: &RecentRequests, now: Instant) -> Replay {
    let recent = recent.recent(before.recent_requests.count);
    replay(before, after, recent.iter(), now)
}

/// Why a plan moves too many requests, if it does.
pub(super) fn exceeds_max_moved(plan: &Plan, most: Percent) -> Option<String> {
    let Replay { moved, requests, .. } = &plan.replay;
    (*moved > most.share()).then(|| {
        format!("{} of the last {requests} requests would have another outcome, more than {most}", percent(*moved))
    })
}
