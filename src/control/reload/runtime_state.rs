//! The parts of the process that a reload replaces.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::base::lifecycle::Lifecycle;
use crate::config::{Checked, listener};
use crate::control::access::ActiveAccess;
use crate::control::reload::active::ActiveConfiguration;
use crate::control::reload::requests::UpgradeHandle;
use crate::control::state_file::StateFile;
use crate::decision::snapshot::Snapshot;
use crate::http::access_rules::AddressRules;
use crate::listener::{ActiveClientRules, ClientRules, descriptors};
use crate::observe::access_log;
use crate::observe::metrics::Metrics;
use crate::observe::recent_requests::RecentRequests;
use crate::observe::recorder::Recorder;
use crate::pool::RunningPools;
use crate::tls::Terminator;

/// What a reload replaces.
#[derive(Clone)]
pub struct RuntimeState {
    /// The snapshot for new requests.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The active configuration.
    pub active: Arc<ArcSwap<ActiveConfiguration>>,
    /// TLS of the listeners.
    pub terminators: Arc<[Arc<Terminator>]>,
    /// The rules for clients.
    pub rules: ActiveClientRules,
    /// The running pools.
    pub pools: RunningPools,
    /// The access log.
    pub access_log: access_log::Slot,
    /// The listeners as at the start: they change only with the process.
    pub listeners: Arc<[listener::Spec]>,
    /// Who may call the control API over TCP.
    pub access: ActiveAccess,
    /// Keeps operator overrides for the next process.
    pub state_file: Arc<StateFile>,
    /// The recent requests.
    pub recent_requests: Arc<RecentRequests>,
    /// The counters of all workers.
    pub metrics: Metrics,
    /// The recorder of single requests.
    pub recorder: Recorder,
    /// The phase of the process.
    pub lifecycle: Lifecycle,
    /// Requests upgrades.
    pub upgrades: UpgradeHandle,
}

impl RuntimeState {
    /// Saves the overrides in the state file, on a thread for blocking work.
    pub async fn save_overrides(&self) {
        let (state_file, snapshot) = (Arc::clone(&self.state_file), self.snapshot.load_full());
        // It fails only if the process ends.
        tokio::task::spawn_blocking(move || state_file.save(&snapshot.pools)).await.ok();
    }
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
        proxy_status: checked.proxy_status,
        access: checked.listeners.iter().filter_map(access).collect(),
        max_connections: (total, limits.per_client),
    })
}

/// The rules of a listener about its peers, if it has some.
fn access(listener: &listener::Spec) -> Option<(Arc<str>, AddressRules)> {
    Some((Arc::clone(&listener.policy.listener), listener.access.clone()?))
}
