//! Reload: replaces the active configuration without affecting requests in flight.
//!
//! The file is read, checked and built as at the start, and only then parts are replaced: a faulty file changes
//! nothing. Requests keep the [`Snapshot`] of their start, so no connection is closed. Equal parts are reused
//! ([`Snapshot::build`]); the backends of new pools are discovered and checked before the pools become active.
//!
//! - [`in_force`]: the active configuration.
//! - [`orders`]: requests to the reloader. [`candidate`]: a new configuration before it is active.
//!
//! [`crate::control::plan::changes`] lists the differences.

mod candidate;
pub mod in_force;
pub mod orders;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
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
use crate::config::{Checked, Config, listener, load};
use crate::decision::snapshot::Snapshot;
use crate::listener::{ActiveClientRules, ClientRules, descriptors};
use crate::observe::access_log::{self, Opened};
use crate::observe::recent_requests::RecentRequests;
use crate::pool::{Pool, RunningPools};
use candidate::{Candidate, too_much};
pub use in_force::InForce;
use orders::Order;
pub use orders::{Draft, How, Orders, Outcome, Planned, Upgrade, Upgrades};

/// The interval of examining the file.
const PERIOD: Duration = Duration::from_millis(500);
/// How long it must be unchanged before it is read: editors write in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// The file of a configuration.
#[derive(Clone, Debug)]
pub struct Source {
    file: PathBuf,
    stamps: Stamps,
}

impl Source {
    /// The path of the file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Records the state of `file`; must be called before it is read, so that no change is missed.
    #[must_use]
    pub fn of(file: &Path) -> Self {
        // A daemon changes its folder.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let stamps = Stamps::of(std::iter::once(file.clone()));
        Self { file, stamps }
    }
}

/// What a reload replaces.
#[derive(Clone)]
pub struct Live {
    /// The snapshot for new requests.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The active configuration.
    pub in_force: Arc<ArcSwap<InForce>>,
    /// The rules for clients.
    pub rules: ActiveClientRules,
    /// The running pools.
    pub kept: RunningPools,
    /// The access log.
    pub access_log: access_log::Slot,
    /// The listeners as at the start: they change only with the process.
    pub listeners: Arc<[listener::Spec]>,
    /// The recent requests.
    pub recent_requests: Arc<RecentRequests>,
    /// The phase of the process.
    pub lifecycle: Lifecycle,
    /// Requests upgrades.
    pub upgrades: Upgrades,
}

/// The background service that reloads.
pub struct Reloader {
    reloading: Mutex<Option<Reloading>>,
    orders: Orders,
    lifecycle: Lifecycle,
}

impl Reloader {
    /// A reloader for `source`, from which `checked` was read.
    #[must_use]
    pub fn new(source: Source, checked: Checked, live: Live) -> Self {
        let (orders, take) = Orders::new();
        let (started, lifecycle) = (checked.written.clone(), live.lifecycle.clone());
        let reloading = Reloading {
            source,
            started,
            current: checked,
            live,
            orders: take,
            pending: Vec::new(),
            retired: Vec::new(),
        };
        Self { reloading: Mutex::new(Some(reloading)), orders, lifecycle }
    }

    /// A handle to request reloads.
    #[must_use]
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }
}

#[async_trait]
impl BackgroundService for Reloader {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let reloading = self.reloading.lock().take();
        if let Some(mut reloading) = reloading {
            self.lifecycle.run(reloading.run()).await;
        }
    }
}

struct Reloading {
    source: Source,
    /// The configuration at the start of the process, for listeners and threads.
    started: Config,
    current: Checked,
    live: Live,
    orders: mpsc::Receiver<Order>,
    /// The changes that were last reported to need an upgrade.
    pending: Vec<String>,
    /// Replaced snapshots that requests still use. They are dropped here, so that no request thread frees ten
    /// thousand routes.
    retired: Vec<Arc<Snapshot>>,
}

impl Reloading {
    async fn run(&mut self) {
        let mut looks = interval(PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clearing = interval(PERIOD);
        clearing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = self.orders.recv() => {
                    let Some(order) = order else { return };
                    self.obey(order).await;
                }
                _ = clearing.tick() => self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1),
                _ = looks.tick(), if self.current.written.reload.watch => {
                    if self.has_changed().await {
                        self.reload(None).await;
                    }
                }
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        // The requester may have disconnected.
        match order {
            Order::Reload { how, tell } => {
                let outcome = self.reload(how.max_moved).await;
                let Some(tell) = tell else { return };
                match outcome {
                    Outcome::Applied(changes) if how.upgrade_if_needed && !changes.needs_upgrade.is_empty() => {
                        let upgrade_sock = self.current.server.upgrade_sock.clone();
                        self.live.upgrades.ask(Upgrade { upgrade_sock, changes, tell }).await;
                    }
                    outcome => drop(tell.send(outcome)),
                }
            }
            Order::Plan { draft, tell } => {
                let planned = self.plan(draft).await.unwrap_or_else(|reason| Planned::Failed { reason });
                tell.send(planned).ok();
            }
        }
    }

    /// Evaluates a configuration without changing anything.
    #[expect(clippy::disallowed_methods, reason = "the age of requests is told from here")]
    async fn plan(&self, Draft { file, text }: Draft) -> Result<Planned, String> {
        let read = move || load::read(&text, &file, &|name| std::env::var(name).ok());
        let read = tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())?;
        let rejected = |diagnostics: Vec<Diagnostic>| Planned::Rejected {
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
        Ok(Planned::Plan(Box::new(plan)))
    }

    /// Whether the file has changed since it was read, and is not being written.
    async fn has_changed(&self) -> bool {
        let seen = again(&self.source.stamps).await;
        if seen == self.source.stamps {
            return false;
        }
        sleep(QUIET).await;
        // If it is still changing, the next examination decides.
        again(&seen).await == seen
    }

    /// Reads the file and activates it, or returns why not.
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
            if let Some(reason) = too_much(&plan, most) {
                return Ok(Outcome::MovesTooMuch { reason, plan: Box::new(plan) });
            }
        }
        let Candidate { checked, source, changes, snapshot, .. } = candidate;
        let rules = rules(&checked)?;
        let access_log = if checked.access_log == self.current.access_log {
            None
        } else {
            Some(Opened::of(&checked.access_log).map_err(|e| e.to_string())?)
        };
        let pools: Vec<_> = snapshot.pools.values().cloned().collect();
        self.live.kept.start(&pools).await;
        let before = self.live.snapshot.swap(snapshot);
        // Operators may have changed weights while these were prepared.
        let is_new = |pool: &&Arc<Pool>| !before.pools.get(pool.name()).is_some_and(|old| Arc::ptr_eq(old, pool));
        pools.iter().filter(is_new).for_each(|pool| pool.update_weights());
        self.retired.push(before);
        self.live.in_force.rcu(|before| before.next(&source));
        self.live.rules.replace(rules);
        self.live.kept.retain(pools, Instant::now());
        if let (Some(opened), Some(log)) = (access_log, &*self.live.access_log.lock()) {
            log.replace(opened);
        }
        self.live.recent_requests.configure(&self.current.recent_requests, &checked.recent_requests);
        self.live.lifecycle.set_drain_delay(checked.drain_delay);
        self.current = checked;
        Ok(Outcome::Applied(changes))
    }

    fn announce(&mut self, outcome: &Outcome) {
        let file = self.source.file.display().to_string();
        match outcome {
            Outcome::Applied(changes) | Outcome::Upgraded { changes, .. } | Outcome::UpgradeFailed { changes, .. } => {
                Event::ConfigReloaded { file, changes: changes.to_string() }.announce();
                if !changes.needs_upgrade.is_empty() && self.pending != changes.needs_upgrade {
                    Event::NeedsUpgrade { keys: changes.needs_upgrade.clone() }.announce();
                }
                self.pending.clone_from(&changes.needs_upgrade);
            }
            Outcome::Rejected { diagnostics } => {
                Event::ConfigRejected { file, reason: diagnostics.concat() }.announce()
            }
            Outcome::MovesTooMuch { reason, .. } | Outcome::Failed { reason } => {
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

/// The rules for clients. The default number of connections follows from the file descriptor limit.
///
/// # Errors
/// If the file descriptor limit cannot be read.
pub fn rules(checked: &Checked) -> Result<ClientRules, String> {
    let descriptors = descriptors::raise_limit().map_err(|e| format!("cannot read the file descriptor limit: {e}"))?;
    let limits = checked.connection_limits;
    let total = limits.total.unwrap_or_else(|| descriptors::connections_for(descriptors));
    Ok(ClientRules {
        timeouts: Arc::new(checked.client_timeouts),
        limits,
        request_limits: checked.request_limits,
        trusted_proxies: checked.trusted_proxies.clone(),
        max_connections: (total, limits.per_client),
    })
}
