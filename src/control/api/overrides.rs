//! Endpoints that set and remove operator overrides of backends.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::Api;
use super::input::{Body, Path};
use super::pools::{Backend, BackendPath};
use super::problem::{Cause, Problem};
use crate::pool::operator::overrides::{Change, State};

/// The new state of a backend.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewState {
    /// `enabled`, `draining` or `disabled`.
    pub state: State,
}

/// The new weight of a backend.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWeight {
    /// Its share relative to the other backends, 0 to 1000; 0 gets none.
    pub weight: u32,
}

pub(super) async fn state(
    api: Api,
    (Path(which), Body(new)): (Path<BackendPath>, Body<NewState>),
) -> Result<Backend, Problem> {
    change(&api, &which, Change::State(new.state)).await
}

pub(super) async fn weight(
    api: Api,
    (Path(which), Body(new)): (Path<BackendPath>, Body<NewWeight>),
) -> Result<Backend, Problem> {
    change(&api, &which, Change::Weight(new.weight)).await
}

pub(super) async fn end(api: Api, Path(which): Path<BackendPath>) -> Result<Backend, Problem> {
    change(&api, &which, Change::Clear).await
}

/// Applies the change and saves it for the next process.
async fn change(api: &Api, which: &BackendPath, change: Change) -> Result<Backend, Problem> {
    apply(api, which, change)?;
    api.live.save_overrides().await;
    api.backend(which)
}

/// Applies the change immediately, for all workers.
#[expect(clippy::disallowed_methods, reason = "slow start begins with the change")]
fn apply(api: &Api, which: &BackendPath, change: Change) -> Result<(), Problem> {
    // Reports an unknown backend with the known ones.
    api.backend(which)?;
    let pool = api.pool(&which.pool)?;
    pool.change(which.address, change, crate::base::units::Timestamp::now(), std::time::Instant::now())
        .map_err(|rejection| Problem::new(Cause::Malformed, rejection.to_string()))?;
    // A reload may have replaced the pool meanwhile, with the same backends.
    let now = api.pool(&which.pool)?;
    if !Arc::ptr_eq(&pool, &now) {
        now.update_weights();
    }
    Ok(())
}
