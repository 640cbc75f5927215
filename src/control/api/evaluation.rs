//! Endpoints that evaluate without changing anything: `explain` and `plan`.

use std::time::{Instant, SystemTime};

use super::context::Api;
use super::input::Body;
use super::problem::{Cause, Problem};
use crate::control::plan::Plan;
use crate::control::reload::{Draft, PlanOutcome};
use crate::decision::example::ExampleQuery;
use crate::decision::explanation::Explanation;
use crate::decision::live::{self, Moment};

pub(super) async fn plan(api: Api, Body(draft): Body<Draft>) -> Result<Plan, Problem> {
    match api.reload_handle()?.plan(draft).await {
        PlanOutcome::Plan(plan) => Ok(*plan),
        PlanOutcome::Rejected { diagnostics } => Err(Problem {
            diagnostics,
            ..Problem::new(Cause::ConfigurationRejected, "the configuration would be rejected")
        }),
        PlanOutcome::Failed { reason } => Err(api.failed(reason)),
    }
}

#[expect(clippy::disallowed_methods, reason = "limits and backends are looked at as they are now")]
pub(super) async fn explain(api: Api, Body(question): Body<ExampleQuery>) -> Result<Explanation, Problem> {
    let example = question.example().map_err(|why| Problem::new(Cause::Malformed, why))?;
    let snapshot = api.live.snapshot.load_full();
    let at = Moment { now: Instant::now(), time: SystemTime::now() };
    Ok(live::explain(&example, &snapshot, &api.live.listeners, at).await)
}
