//! What concerns the process as a whole: its version, whether it is alive and ready, a reload.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Api, Cause, Problem};
use crate::plan::changes::Changes;
use crate::reload::Outcome;

/// What runs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The version of l7lb.
    pub version: String,
    /// The process id.
    pub pid: u32,
}

/// The process is alive.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Live {
    /// Always true: a process that is not alive does not answer.
    pub live: bool,
}

/// The process takes requests.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Ready {
    /// Always true: where it is not ready, the answer is a problem.
    pub ready: bool,
}

pub(super) async fn version(_api: Api, (): ()) -> Result<Version, Problem> {
    Ok(Version { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() })
}

pub(super) async fn live(_api: Api, (): ()) -> Result<Live, Problem> {
    Ok(Live { live: true })
}

pub(super) async fn ready(api: Api, (): ()) -> Result<Ready, Problem> {
    if *api.span.leaving.borrow() {
        return Err(Problem::new(Cause::Leaving, "the process is about to leave"));
    }
    if !*api.span.serving.borrow() {
        return Err(Problem::new(Cause::Starting, "the process does not take requests yet"));
    }
    Ok(Ready { ready: true })
}

pub(super) async fn reload(api: Api, (): ()) -> Result<Changes, Problem> {
    let Some(orders) = &api.orders else {
        return Err(Problem::new(Cause::NoFile, "the configuration came from no file"));
    };
    match orders.outcome().await {
        Outcome::Applied(changes) => Ok(changes),
        Outcome::Rejected { diagnostics } => {
            let detail = "the old configuration stays in force";
            Err(Problem { diagnostics, ..Problem::new(Cause::ConfigurationRejected, detail) })
        }
        Outcome::Failed { reason } => {
            let cause = if *api.span.leaving.borrow() { Cause::Leaving } else { Cause::Failed };
            Err(Problem::new(cause, format!("the old configuration stays in force: {reason}")))
        }
    }
}
