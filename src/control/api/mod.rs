//! The control socket: a Unix-domain socket in the folder that only we may enter, where a running
//! process is asked by HTTP and answers with JSON.
//!
//! [`endpoints`] is the table of all that can be asked. It has a thread of its own, so that nothing that
//! is asked here delays a request.
//!
//! - [`socket`]: who may come in. [`endpoint`], [`input`], [`problem`]: a row of the table, what it takes,
//!   how it says no.
//! - [`process`]: what concerns the process as a whole. [`configuration`]: what is in force. [`log`]: what
//!   happened, and how much is told. [`pools`]: backends as they are now. [`overrides`]: changing them;
//!   [`inheritance`]: taking such changes over.
//! - [`foresight`]: what would be.
//! - [`client`] asks. [`openapi`] describes it all for programs.

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

/// The largest body, in bytes: a configuration of very many routes.
const BODY_MAX: usize = 16 << 20;

/// What the endpoints know of the process. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Api {
    /// Has the file read anew; nothing where the configuration came from no file.
    pub orders: Option<Orders>,
    /// What is in force.
    pub live: Live,
    /// The operator's log.
    pub log: OperatorLog,
}

impl Api {
    /// Who reads the file anew.
    fn orders(&self) -> Result<&Orders, Problem> {
        self.orders.as_ref().ok_or_else(|| Problem::new(Cause::NoFile, "the configuration came from no file"))
    }

    /// Something could not be done.
    fn failed(&self, why: String) -> Problem {
        Problem::new(if self.live.lifecycle.phase() > Phase::Ready { Cause::Leaving } else { Cause::Failed }, why)
    }
}

/// All that can be asked, one row each.
#[must_use]
pub fn endpoints() -> Vec<Endpoint> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    const DELETE: Method = Method::DELETE;
    vec![
        Endpoint::new(GET, "/version", "What runs: the version and the process.", process::version),
        Endpoint::new(GET, "/live", "Whether the process is alive: it answers.", process::live),
        Endpoint::new(GET, "/ready", "Whether the process takes requests.", process::ready),
        Endpoint::new(POST, "/reload", "Read the configuration file anew and put it in force.", process::reload),
        Endpoint::new(
            POST,
            "/plan",
            "What a configuration would change, and move of the requests of the last while.",
            foresight::plan,
        ),
        Endpoint::new(POST, "/explain", "Where a request would go now, and why; it is not sent.", foresight::explain),
        Endpoint::new(GET, "/configuration", "The configuration in force, without secrets.", configuration::read),
        Endpoint::new(GET, "/routes", "What goes where.", configuration::routes),
        Endpoint::new(GET, "/pools", "The pools, as they are now.", pools::all),
        Endpoint::new(GET, "/backends", "The backends, as they are now.", pools::backends),
        Endpoint::new(GET, "/pools/{pool}/backends/{address}", "One backend, as it is now.", pools::backend),
        Endpoint::new(
            PUT,
            "/pools/{pool}/backends/{address}/state",
            "Enable, drain or disable a backend, until the file says something else about it.",
            overrides::state,
        ),
        Endpoint::new(
            PUT,
            "/pools/{pool}/backends/{address}/weight",
            "Change a backend's share, until the file says something else about it.",
            overrides::weight,
        ),
        Endpoint::new(DELETE, "/pools/{pool}/backends/{address}/override", "Follow the file again.", overrides::end),
        Endpoint::new(GET, "/events", "What happened lately.", log::events),
        Endpoint::new(GET, "/log-level", "How much is logged.", log::level),
        Endpoint::new(PUT, "/log-level", "Log more or less, until the process ends.", log::set_level),
        Endpoint::new(GET, "/openapi.json", "This API as an OpenAPI 3.1 document.", openapi::read),
    ]
}

/// The table as a service.
fn router(api: Api) -> Router {
    let routed = endpoints().into_iter().fold(Router::new(), |router, row| router.route(row.path, row.serve));
    routed
        .fallback(async |uri: Uri| Problem::new(Cause::UnknownPath, format!("there is no {}", uri.path())))
        .method_not_allowed_fallback(async || {
            Problem::new(Cause::MethodNotAllowed, "`Allow` says which methods it has")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(api)
}

#[cfg(test)]
mod openapi_tests;
