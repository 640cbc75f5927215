//! What a graceful upgrade takes over from the process before: what operators said about its backends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Client;
use super::pools::{Backend, Backends};
use crate::base::units::PoolName;
use crate::pool::Pool;
use crate::pool::operator::overrides::{Change, Override};

/// How long the process before may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the process before, and has its overrides hold here too. Where the file says something else about
/// the backend than it did there, the file is followed. What is lost is told in the log.
pub(super) fn take(before: &Client, pools: &BTreeMap<PoolName, Arc<Pool>>) {
    let Backends { backends } = match before.clone().with_patience(PATIENCE).get("/backends") {
        Ok(backends) => backends,
        Err(e) => return log::warn!("overrides of backends, if there are any, are lost: {e}"),
    };
    for backend in backends {
        let Some(told) = backend.overridden else { continue };
        if !pools.get(&backend.pool).is_some_and(|pool| apply(pool, &backend, told)) {
            log::warn!(
                "override not taken over, the file says something else: pool={} backend={}",
                backend.pool,
                backend.address
            );
        }
    }
}

/// Whether the backend is there, and the file says of it what it said.
#[expect(clippy::disallowed_methods, reason = "slow start begins with the change")]
fn apply(pool: &Pool, backend: &Backend, told: Override) -> bool {
    let now = Instant::now();
    let found = pool.backends();
    let same = found
        .iter()
        .any(|found| found.endpoint.address() == backend.address && super::pools::written(found) == backend.written);
    let changes = [told.state.map(Change::State), told.weight.map(Change::Weight)];
    same && changes.into_iter().flatten().all(|change| pool.change(backend.address, change, told.since, now).is_ok())
}
