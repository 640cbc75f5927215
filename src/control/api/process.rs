//! Endpoints for the process: version, liveness, readiness and reload.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::Api;
use super::input::Query;
use super::problem::{Cause, Problem};
use crate::base::lifecycle::Phase;
use crate::base::units::Percent;
use crate::control::plan::changes::Changes;
use crate::control::reload::{Outcome, ReloadOptions};

/// The running version.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The version of l7lb.
    pub version: String,
    /// The process id.
    pub pid: u32,
}

/// The process is alive.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Liveness {
    /// Always true: a process that is not alive does not respond.
    pub live: bool,
}

/// The process is ready.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Ready {
    /// Always true: a process that is not ready returns a problem.
    pub ready: bool,
}

pub(super) async fn version(_api: Api, (): ()) -> Result<Version, Problem> {
    Ok(Version { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() })
}

pub(super) async fn live(_api: Api, (): ()) -> Result<Liveness, Problem> {
    Ok(Liveness { live: true })
}

pub(super) async fn ready(api: Api, (): ()) -> Result<Ready, Problem> {
    match api.live.lifecycle.phase() {
        Phase::Ready => Ok(Ready { ready: true }),
        Phase::Starting => Err(Problem::new(Cause::Starting, "the process is not ready yet")),
        Phase::Replaced | Phase::Draining | Phase::Aborting => {
            Err(Problem::new(Cause::Draining, "the process is shutting down"))
        }
    }
}

/// Options of a reload.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ReloadQuery {
    /// The largest share of recent requests that may have another outcome, such as `5%`; default:
    /// `reload.max_moved`.
    #[serde(default)]
    pub max_moved: Option<Percent>,
    /// Whether a new process takes over if listeners or settings of the server have changed.
    #[serde(default)]
    pub upgrade_if_needed: bool,
}

/// The result of a reload.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// The differences.
    #[serde(flatten)]
    pub changes: Changes,
    /// Whether a new process serves from now on.
    pub upgraded: bool,
    /// Its process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

pub(super) async fn reload(api: Api, Query(options): Query<ReloadQuery>) -> Result<Reloaded, Problem> {
    let reload_handle = api.reload_handle()?;
    let kept = "the active configuration stays";
    let options = ReloadOptions { max_moved: options.max_moved, upgrade_if_needed: options.upgrade_if_needed };
    match reload_handle.reload(options).await {
        Outcome::Applied(changes) => Ok(Reloaded { changes, upgraded: false, pid: None }),
        Outcome::Upgraded { changes, pid } => Ok(Reloaded { changes, upgraded: true, pid }),
        Outcome::UpgradeFailed { changes, reason } => {
            let detail =
                format!("reloaded, but not upgraded; the old process continues to serve: {reason}\n\n{changes}");
            Err(Problem::new(Cause::UpgradeFailed, detail))
        }
        Outcome::Rejected { diagnostics } => {
            Err(Problem { diagnostics, ..Problem::new(Cause::ConfigurationRejected, kept) })
        }
        Outcome::ExceedsMaxMoved { reason, plan } => {
            Err(Problem::new(Cause::ExceedsMaxMoved, format!("{kept}: {reason}\n\n{plan}")))
        }
        Outcome::Failed { reason } => Err(api.failed(format!("{kept}: {reason}"))),
    }
}
