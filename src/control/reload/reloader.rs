//! The background service that reloads: on request, and when the file changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::base::event::Event;
use crate::base::file_stamps::Stamps;
use crate::base::lifecycle::Lifecycle;
use crate::base::systemd;
use crate::base::units::Percent;
use crate::config::diagnostic::Diagnostic;
use crate::config::load::Loaded;
use crate::config::{Checked, Config, load};
use crate::control::reload::candidate::{Candidate, exceeds_max_moved};
use crate::control::reload::requests::{Draft, Outcome, PlanOutcome, ReloadHandle, ReloadRequest, UpgradeRequest};
use crate::control::reload::runtime_state::{RuntimeState, rules};
use crate::control::reload::source::Source;
use crate::decision::snapshot::Snapshot;
use crate::observe::access_log::Opened;
use crate::pool::Pool;

/// The interval at which the configuration file is checked for changes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long the file must be unchanged before it is read: editors write in several steps.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// The background service that reloads.
pub struct Reloader {
    task: Mutex<Option<ReloadTask>>,
    reload_handle: ReloadHandle,
    lifecycle: Lifecycle,
}

impl Reloader {
    /// A reloader for `source`, from which `checked` was read.
    #[must_use]
    pub fn new(source: Source, checked: Checked, live: RuntimeState) -> Self {
        let (reload_handle, requests) = ReloadHandle::new();
        let (started, lifecycle) = (checked.written.clone(), live.lifecycle.clone());
        let task = ReloadTask {
            source,
            started,
            current: checked,
            live,
            requests,
            reported_upgrade_keys: Vec::new(),
            retired: Vec::new(),
        };
        Self { task: Mutex::new(Some(task)), reload_handle, lifecycle }
    }

    /// A handle to request reloads.
    #[must_use]
    pub fn reload_handle(&self) -> ReloadHandle {
        self.reload_handle.clone()
    }
}

#[async_trait]
impl BackgroundService for Reloader {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let task = self.task.lock().take();
        if let Some(mut task) = task {
            self.lifecycle.run(task.run()).await;
        }
    }
}

struct ReloadTask {
    source: Source,
    /// The configuration at process start. Listeners and threads keep it until an upgrade.
    started: Config,
    current: Checked,
    live: RuntimeState,
    requests: mpsc::Receiver<ReloadRequest>,
    /// The changes that were last reported to need an upgrade.
    reported_upgrade_keys: Vec<String>,
    /// Replaced snapshots that requests still use. They are dropped here, so that no request thread frees ten
    /// thousand routes.
    retired: Vec<Arc<Snapshot>>,
}

impl ReloadTask {
    async fn run(&mut self) {
        let mut polls = interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clearing = interval(POLL_INTERVAL);
        clearing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = self.requests.recv() => {
                    let Some(request) = request else { return };
                    self.handle(request).await;
                }
                _ = clearing.tick() => self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1),
                _ = polls.tick(), if self.current.written.reload.watch => {
                    if self.has_changed().await {
                        self.reload(None).await;
                    }
                }
            }
        }
    }

    async fn handle(&mut self, request: ReloadRequest) {
        // The requester may have disconnected.
        match request {
            ReloadRequest::Reload { options, reply } => {
                let outcome = self.reload(options.max_moved).await;
                let Some(reply) = reply else { return };
                match outcome {
                    Outcome::Applied(changes) if options.upgrade_if_needed && !changes.needs_upgrade.is_empty() => {
                        let upgrade_sock = self.current.server.upgrade_sock.clone();
                        self.live.upgrades.send(UpgradeRequest { upgrade_sock, changes, reply }).await;
                    }
                    outcome => drop(reply.send(outcome)),
                }
            }
            ReloadRequest::Plan { draft, reply } => {
                let planned = self.plan(draft).await.unwrap_or_else(|reason| PlanOutcome::Failed { reason });
                reply.send(planned).ok();
            }
        }
    }

    /// Evaluates a configuration without changing anything.
    #[expect(clippy::disallowed_methods, reason = "the age of recent requests is relative to now")]
    async fn plan(&self, Draft { file, text }: Draft) -> Result<PlanOutcome, String> {
        let read = move || load::read(&text, &file, &|name| std::env::var(name).ok());
        let read = tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())?;
        let rejected = |diagnostics: Vec<Diagnostic>| PlanOutcome::Rejected {
            diagnostics: diagnostics.iter().map(ToString::to_string).collect(),
        };
        let loaded = match read {
            Ok(loaded) => loaded,
            Err(diagnostics) => return Ok(rejected(diagnostics)),
        };
        let now = Instant::now();
        let candidate = match Candidate::new(loaded, (&self.current, &self.started), &self.live, now)? {
            Ok(candidate) => candidate,
            Err(diagnostics) => return Ok(rejected(diagnostics)),
        };
        let plan = candidate.plan(&self.current, &self.live.recent_requests, now).await?;
        Ok(PlanOutcome::Plan(Box::new(plan)))
    }

    /// Whether the file has changed since it was read, and is not being written.
    async fn has_changed(&self) -> bool {
        let seen = again(&self.source.stamps).await;
        if seen == self.source.stamps {
            return false;
        }
        sleep(SETTLE_TIME).await;
        // A file that is still being written is checked again at the next poll.
        again(&seen).await == seen
    }

    /// Reads the file and activates it, or returns the reason for the failure.
    async fn reload(&mut self, max_moved: Option<Percent>) -> Outcome {
        systemd::reloading();
        let outcome = match self.read().await {
            Err(reason) => Outcome::Failed { reason },
            Ok(Err(diagnostics)) => Outcome::rejected(&diagnostics),
            Ok(Ok(loaded)) => self.apply(loaded, max_moved).await.unwrap_or_else(|reason| Outcome::Failed { reason }),
        };
        systemd::ready();
        self.announce(&outcome);
        outcome
    }

    /// Reads the file on a thread for blocking work.
    async fn read(&mut self) -> Result<Result<Loaded, Vec<Diagnostic>>, String> {
        let file = self.source.file.clone();
        let read = move || (Source::of(&file), load::open(&file));
        let (source, loaded) = tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())?;
        self.source = source;
        Ok(loaded)
    }

    #[expect(clippy::disallowed_methods, reason = "the windows of new limits begin with the reload")]
    async fn apply(&mut self, loaded: Loaded, max_moved: Option<Percent>) -> Result<Outcome, String> {
        let now = Instant::now();
        let candidate = match Candidate::new(loaded, (&self.current, &self.started), &self.live, now)? {
            Ok(candidate) => candidate,
            Err(failed) => return Ok(Outcome::rejected(&failed)),
        };
        if let Some(most) = max_moved.or(self.current.written.reload.max_moved) {
            if self.current.recent_requests.count == 0 {
                return Err(
                    "no recent requests are kept (`recent_requests.count` is 0), so the change cannot be evaluated"
                        .to_owned(),
                );
            }
            let plan = candidate.plan(&self.current, &self.live.recent_requests, now).await?;
            if let Some(reason) = exceeds_max_moved(&plan, most) {
                return Ok(Outcome::ExceedsMaxMoved { reason, plan: Box::new(plan) });
            }
        }
        let Candidate { checked, source, changes, snapshot, .. } = candidate;
        let rules = rules(&checked)?;
        let access_log = if checked.access_log == self.current.access_log {
            None
        } else {
            Some(Opened::of(&checked.access_log).map_err(|e| e.to_string())?)
        };
        snapshot.caches.open(&checked.cache, checked.used_stores())?;
        let pools: Vec<_> = snapshot.pools.values().cloned().collect();
        self.live.pools.start(&pools).await;
        let before = self.live.snapshot.swap(snapshot);
        // Operators may have changed weights while the new pools were prepared.
        let is_new = |pool: &&Arc<Pool>| !before.pools.get(pool.name()).is_some_and(|old| Arc::ptr_eq(old, pool));
        pools.iter().filter(is_new).for_each(|pool| pool.update_weights());
        self.retired.push(before);
        self.live.active.rcu(|before| before.next(&source));
        self.live.rules.replace(rules);
        self.live.access.replace(checked.admin.as_ref().map(|admin| admin.access.clone()).unwrap_or_default());
        self.live.pools.retain(pools, Instant::now());
        if let (Some(opened), Some(log)) = (access_log, &*self.live.access_log.lock()) {
            log.replace(opened);
        }
        self.live.recent_requests.configure(&self.current.recent_requests, &checked.recent_requests);
        self.live.lifecycle.set_drain_delay(checked.drain_delay);
        self.current = checked;
        // The change may have ended overrides.
        self.live.save_overrides().await;
        Ok(Outcome::Applied(changes))
    }

    fn announce(&mut self, outcome: &Outcome) {
        let file = self.source.file.display().to_string();
        match outcome {
            Outcome::Applied(changes) | Outcome::Upgraded { changes, .. } | Outcome::UpgradeFailed { changes, .. } => {
                Event::ConfigReloaded { file, changes: changes.to_string() }.announce();
                if !changes.needs_upgrade.is_empty() && self.reported_upgrade_keys != changes.needs_upgrade {
                    Event::NeedsUpgrade { keys: changes.needs_upgrade.clone() }.announce();
                }
                self.reported_upgrade_keys.clone_from(&changes.needs_upgrade);
            }
            Outcome::Rejected { diagnostics } => {
                Event::ConfigRejected { file, reason: diagnostics.concat() }.announce()
            }
            Outcome::ExceedsMaxMoved { reason, .. } | Outcome::Failed { reason } => {
                Event::ConfigRejected { file, reason: reason.clone() }.announce()
            }
        }
    }
}

/// The current state of the files; the previous state if it cannot be determined.
async fn again(stamps: &Stamps) -> Stamps {
    let stamps = stamps.clone();
    let before = stamps.clone();
    tokio::task::spawn_blocking(move || stamps.again()).await.unwrap_or(before)
}
