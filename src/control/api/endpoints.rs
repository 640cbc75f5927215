//! The table of all endpoints, and its router.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use http::{Method, Uri};
use serde_json::Value;

use super::context::Api;
use super::endpoint::Endpoint;
use super::problem::{Cause, Problem};
use super::{cache_purge, cache_state, configuration, evaluation, log, openapi, overrides, pools, process};

/// The largest request body in bytes: a configuration with very many routes.
const BODY_MAX: usize = 16 << 20;

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
            evaluation::plan,
        ),
        Endpoint::new(
            POST,
            "/explain",
            "The route, pool and backend of a request, and why; it is not sent.",
            evaluation::explain,
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
        Endpoint::new(GET, "/cache", "What the caches of routes did, and the stores.", cache_state::state),
        Endpoint::new(GET, "/cache/top", "The largest or most requested stored responses.", cache_state::top),
        Endpoint::new(POST, "/cache/purge", "Purge stored responses.", cache_purge::purge),
        Endpoint::new(GET, "/events", "The last events.", log::events),
        Endpoint::new(GET, "/log-level", "The log level.", log::level),
        Endpoint::new(PUT, "/log-level", "Set the log level, until the process ends.", log::set_level),
        Endpoint::new(GET, "/openapi.json", "This API as an OpenAPI 3.1 document.", openapi_document),
    ]
}

/// The table as a service.
pub(super) fn router(api: Api) -> Router {
    let routed = endpoints().into_iter().fold(Router::new(), |router, row| router.route(row.path, row.serve));
    routed
        .fallback(async |uri: Uri| Problem::new(Cause::UnknownPath, format!("there is no {}", uri.path())))
        .method_not_allowed_fallback(async || {
            Problem::new(Cause::MethodNotAllowed, "see `Allow` for the methods of this path")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(api)
}

async fn openapi_document(_api: Api, (): ()) -> Result<Value, Problem> {
    Ok(openapi::document(endpoints()))
}
