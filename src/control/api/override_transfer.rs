//! Takes over operator overrides from the old process in a graceful upgrade.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Client;
use super::pools::{Backend, Backends};
use crate::base::backend_address::BackendAddress;
use crate::base::units::PoolName;
use crate::pool::Pool;
use crate::pool::operator::overrides::{Change, Override};

/// The timeout for the response of the old process.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The backends of a process.
pub(super) type Listed = BTreeSet<(PoolName, BackendAddress)>;

/// Reads the overrides of the old process and applies them here. An override is dropped, with a log line, if
/// the configured settings of its backend differ. Returns the backends of the old process, if it responds.
pub(super) fn take(before: &Client, pools: &BTreeMap<PoolName, Arc<Pool>>) -> Option<Listed> {
    let Backends { backends } = match before.clone().with_timeout(TIMEOUT).get("/backends") {
        Ok(backends) => backends,
        Err(e) => {
            log::warn!("the old process does not list its overrides, those of the state file apply: {e}");
            return None;
        }
    };
    let listed = backends.iter().map(|backend| (backend.pool.clone(), backend.address)).collect();
    for backend in backends {
        let Some(overridden) = backend.overridden else { continue };
        if !pools.get(&backend.pool).is_some_and(|pool| apply(pool, &backend, overridden)) {
            log::warn!(
                "override dropped, the configured settings differ: pool={} backend={}",
                backend.pool,
                backend.address
            );
        }
    }
    Some(listed)
}

/// Applies the override if the backend exists with the same configured settings.
#[expect(clippy::disallowed_methods, reason = "slow start begins with the change")]
fn apply(pool: &Pool, backend: &Backend, overridden: Override) -> bool {
    let now = Instant::now();
    let found = pool.backends();
    let same = found.iter().any(|found| {
        found.endpoint.address() == backend.address && super::pools::configured(found) == backend.configured
    });
    let changes = [overridden.state.map(Change::State), overridden.weight.map(Change::Weight)];
    same && changes
        .into_iter()
        .flatten()
        .all(|change| pool.change(backend.address, change, overridden.since, now).is_ok())
}
