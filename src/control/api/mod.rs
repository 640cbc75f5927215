//! The control API: HTTP with JSON on a Unix-domain socket in a private folder.
//!
//! [`endpoints`] is the table of all endpoints. The API has its own thread, so that calls do not delay
//! requests.
//!
//! - [`socket`]: access control and the service. [`endpoint`], [`input`], [`problem`]: one endpoint, its input,
//!   and its errors.
//! - [`process`]: version, readiness, reload. [`configuration`]: the active configuration. [`log`]: events and
//!   log level. [`pools`]: the state of backends. [`overrides`]: operator overrides; [`inheritance`]: takes
//!   them over in an upgrade.
//! - [`foresight`]: explain and plan.
//! - [`client`]: the client. [`openapi`]: the OpenAPI document.

pub mod client;
pub mod configuration;
pub mod endpoint;
mod foresight;
mod inheritance;
pub mod input;
pub mod log;
pub mod openapi;
pub mod overrides;
pub mod pools;
pub mod problem;
pub mod process;
pub mod socket;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use http::{Method, Uri};

pub use client::Client;
pub use endpoint::Endpoint;
pub use problem::{Cause, Problem};
pub use socket::{Admin, Control, socket_path};

use crate::base::lifecycle::Phase;
use crate::control::reload::{Live, Orders};
use crate::observe::OperatorLog;

/// The largest request body in bytes: a configuration with very many routes.
const BODY_MAX: usize = 16 << 20;

/// The state that endpoints use. Cheap to clone; all clones share it.
#[derive(Clone)]
pub struct Api {
    /// Requests reloads; `None` if the configuration came from no file.
    pub orders: Option<Orders>,
    /// The active configuration.
    pub live: Live,
    /// The operator log.
    pub log: OperatorLog,
}

impl Api {
    /// The handle to request reloads.
    fn orders(&self) -> Result<&Orders, Problem> {
        self.orders.as_ref().ok_or_else(|| Problem::new(Cause::NoFile, "the configuration came from no file"))
    }

    /// The problem for a failed operation.
    fn failed(&self, why: String) -> Problem {
        Problem::new(if self.live.lifecycle.phase() > Phase::Ready { Cause::Leaving } else { Cause::Failed }, why)
    }
}

/// All endpoints.
#[must_use]
pub fn endpoints() -> Vec<Endpoint> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    const DELETE: Method = Method::DELETE;
    vec![
        Endpoint::new(GET, "/version", "The version and the process id.", process::version),
        Endpoint::new(GET, "/live", "Liveness of the process.", process::live),
        Endpoint::new(GET, "/ready", "Readiness of the process.", process::ready),
        Endpoint::new(POST, "/reload", "Reload the configuration file.", process::reload),
        Endpoint::new(
            POST,
            "/plan",
            "What a configuration would change, for recent requests as well.",
            foresight::plan,
        ),
        Endpoint::new(
            POST,
            "/explain",
            "The route, pool and backend of a request, and why; it is not sent.",
            foresight::explain,
        ),
        Endpoint::new(GET, "/configuration", "The active configuration, without secrets.", configuration::read),
        Endpoint::new(GET, "/routes", "The routes.", configuration::routes),
        Endpoint::new(GET, "/pools", "The pools and their state.", pools::all),
        Endpoint::new(GET, "/backends", "The backends and their state.", pools::backends),
        Endpoint::new(GET, "/pools/{pool}/backends/{address}", "One backend and its state.", pools::backend),
        Endpoint::new(
            PUT,
            "/pools/{pool}/backends/{address}/state",
            "Enable, drain or disable a backend, until its configured settings change.",
            overrides::state,
        ),
        Endpoint::new(
            PUT,
            "/pools/{pool}/backends/{address}/weight",
            "Change the weight of a backend, until its configured settings change.",
            overrides::weight,
        ),
        Endpoint::new(
            DELETE,
            "/pools/{pool}/backends/{address}/override",
            "Remove the override of a backend.",
            overrides::end,
        ),
        Endpoint::new(GET, "/events", "The last events.", log::events),
        Endpoint::new(GET, "/log-level", "The log level.", log::level),
        Endpoint::new(PUT, "/log-level", "Set the log level, until the process ends.", log::set_level),
        Endpoint::new(GET, "/openapi.json", "This API as an OpenAPI 3.1 document.", openapi::read),
    ]
}

/// The table as a service.
fn router(api: Api) -> Router {
    let routed = endpoints().into_iter().fold(Router::new(), |router, row| router.route(row.path, row.serve));
    routed
        .fallback(async |uri: Uri| Problem::new(Cause::UnknownPath, format!("there is no {}", uri.path())))
        .method_not_allowed_fallback(async || {
            Problem::new(Cause::MethodNotAllowed, "see `Allow` for the methods of this path")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(api)
}

#[cfg(test)]
mod openapi_tests;
