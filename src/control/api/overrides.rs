//! Changing what backends are to have, instead of the file and until the file says otherwise.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{Body, Path};
use super::pools::{Backend, Which};
use super::{Api, Cause, Problem};
use crate::pool::operator::overrides::{Change, State};

/// Whether a backend is to have requests.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewState {
    /// `enabled`, `draining` or `disabled`.
    pub state: State,
}

/// A backend's share of the traffic.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWeight {
    /// Its share relative to the other backends, 0 to 1000; 0 takes none.
    pub weight: u32,
}

pub(super) async fn state(
    api: Api,
    (Path(which), Body(new)): (Path<Which>, Body<NewState>),
) -> Result<Backend, Problem> {
    change(&api, &which, Change::State(new.state))
}

pub(super) async fn weight(
    api: Api,
    (Path(which), Body(new)): (Path<Which>, Body<NewWeight>),
) -> Result<Backend, Problem> {
    change(&api, &which, Change::Weight(new.weight))
}

pub(super) async fn end(api: Api, Path(which): Path<Which>) -> Result<Backend, Problem> {
    change(&api, &which, Change::Clear)
}

/// It holds at once, for all workers.
#[expect(clippy::disallowed_methods, reason = "slow start begins with the change")]
fn change(api: &Api, which: &Which, change: Change) -> Result<Backend, Problem> {
    // Where there is none, this says what there is.
    api.backend(which)?;
    let pool = api.pool(&which.pool)?;
    pool.change(which.address, change, crate::base::units::Timestamp::now(), std::time::Instant::now())
        .map_err(|refusal| Problem::new(Cause::Malformed, refusal.to_string()))?;
    // A reload may have put another pool in its place meanwhile, with the same backends.
    let now = api.pool(&which.pool)?;
    if !Arc::ptr_eq(&pool, &now) {
        now.update_weights();
    }
    api.backend(which)
}
