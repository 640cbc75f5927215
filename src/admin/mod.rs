//! The control socket: a Unix-domain socket in the folder that only we may enter, where a running
//! process is asked by HTTP and answers with JSON.
//!
//! [`endpoints`] is the table of all that can be asked. It has a thread of its own, so that nothing that
//! is asked here delays a request.
//!
//! - [`socket`]: who may come in. [`endpoint`], [`input`], [`problem`]: a row of the table, what it takes,
//!   how it says no.
//! - [`process`]: what concerns the process as a whole.
//! - [`client`] asks.

pub mod client;
pub mod endpoint;
pub mod input;
pub mod problem;
pub mod process;
pub mod socket;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use http::Uri;

pub use client::Client;
pub use endpoint::Endpoint;
pub use problem::{Cause, Problem};
pub use socket::{Admin, Control, socket_path};

use crate::reload::{Orders, Span};
use crate::snapshot::Snapshot;

/// The largest body, in bytes: a configuration of very many routes.
const BODY_MAX: usize = 16 << 20;

/// What the endpoints know of the process. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Api {
    /// Has the file read anew; nothing where the configuration came from no file.
    pub orders: Option<Orders>,
    /// When the process serves.
    pub span: Span,
    /// What requests begin with.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
}

/// All that can be asked, one row each.
#[must_use]
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/version", "What runs: the version and the process.", process::version),
        Endpoint::get("/live", "Whether the process is alive: it answers.", process::live),
        Endpoint::get("/ready", "Whether the process takes requests.", process::ready),
        Endpoint::post("/reload", "Read the configuration file anew and put it in force.", process::reload),
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
