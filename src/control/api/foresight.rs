//! Endpoints that evaluate without changing anything: `explain` and `plan`.

use std::time::{Instant, SystemTime};

use super::input::Body;
use super::{Api, Cause, Problem};
use crate::control::plan::Plan;
use crate::control::reload::{Draft, Planned};
use crate::decision::example::Question;
use crate::decision::explanation::Explanation;
use crate::decision::live::{self, Moment};

pub(super) async fn plan(api: Api, Body(draft): Body<Draft>) -> Result<Plan, Problem> {
    match api.orders()?.plan(draft).await {
        Planned::Plan(plan) => Ok(*plan),
        Planned::Rejected { diagnostics } => Err(Problem {
            diagnostics,
            ..Problem::new(Cause::ConfigurationRejected, "the configuration would be rejected")
        }),
        Planned::Failed { reason } => Err(api.failed(reason)),
    }
}

#[expect(clippy::disallowed_methods, reason = "limits and backends are looked at as they are now")]
pub(super) async fn explain(api: Api, Body(question): Body<Question>) -> Result<Explanation, Problem> {
    let example = question.example().map_err(|why| Problem::new(Cause::Malformed, why))?;
    let snapshot = api.live.snapshot.load_full();
    let at = Moment { now: Instant::now(), time: SystemTime::now() };
    Ok(live::explain(&example, &snapshot, &api.live.listeners, at))
}
