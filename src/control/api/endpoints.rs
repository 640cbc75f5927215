//! The table of all endpoints, and its router.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::get;
use http::{Method, Uri};
use serde_json::Value;

use super::context::Api;
use super::endpoint::Endpoint;
use super::problem::{Cause, Problem};
use super::registrations::{Deregistered, RegisteredBackend};
use super::{
    cache_purge, cache_state, caller, configuration, evaluation, log, metrics, mirrors, openapi, overrides, pools,
    process, registrations, requests,
};
use crate::config::admin::Role;

/// The largest request body in bytes: a configuration with very many routes.
pub(super) const BODY_MAX: usize = 16 << 20;

/// All endpoints.
#[must_use]
pub fn endpoints() -> Vec<Endpoint> {
    let mut all = of_the_process();
    all.extend(of_backends());
    all.extend(of_the_cache_and_the_log());
    all.extend(of_requests());
    all
}

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;
const READ: Role = Role::Read;
const OPERATE: Role = Role::Operate;
const ADMIN: Role = Role::Admin;

fn of_the_process() -> Vec<Endpoint> {
    vec![
        Endpoint::new(GET, "/version", READ, "The version and the process id.", process::version),
        Endpoint::new(GET, "/live", READ, "Liveness of the process.", process::live),
        Endpoint::new(GET, "/ready", READ, "Readiness of the process.", process::ready),
        Endpoint::new(POST, "/reload", ADMIN, "Reload the configuration file.", process::reload),
        Endpoint::new(
            POST,
            "/plan",
            // A draft can name files and variables of the process, and the response can reveal them.
            ADMIN,
            "What a configuration would change, for recent requests as well.",
            evaluation::plan,
        ),
        Endpoint::new(
            POST,
            "/explain",
            READ,
            "The route, pool and backend of a request, and why; it is not sent.",
            evaluation::explain,
        ),
        Endpoint::new(GET, "/configuration", READ, "The active configuration, without secrets.", configuration::read),
        Endpoint::new(GET, "/routes", READ, "The routes.", configuration::routes),
        Endpoint::new(GET, "/pools", READ, "The pools and their state.", pools::all),
    ]
}

fn of_backends() -> Vec<Endpoint> {
    vec![
        Endpoint::new(GET, "/backends", READ, "The backends and their state.", pools::backends),
        Endpoint::new(GET, "/pools/{pool}/backends/{address}", READ, "One backend and its state.", pools::backend),
        Endpoint::with_response::<_, _, _, _, _, RegisteredBackend>(
            PUT,
            "/pools/{pool}/backends/{address}",
            OPERATE,
            "Register a backend, change its registration, or renew it.",
            registrations::register,
        ),
        Endpoint::with_response::<_, _, _, _, _, Deregistered>(
            DELETE,
            "/pools/{pool}/backends/{address}",
            OPERATE,
            "End the registration of a backend, which is drained.",
            registrations::deregister,
        ),
        Endpoint::with_response::<_, _, _, _, _, RegisteredBackend>(
            POST,
            "/pools/{pool}/backends/{address}/renew",
            OPERATE,
            "Renew the registration of a backend.",
            registrations::renew,
        ),
        Endpoint::new(
            POST,
            "/pools/{pool}/sources/accept",
            OPERATE,
            "Let the lists of sources that are held back take effect.",
            pools::accept,
        ),
        Endpoint::new(
            PUT,
            "/pools/{pool}/backends/{address}/state",
            OPERATE,
            "Enable, drain or disable a backend, until its configured settings change.",
            overrides::state,
        ),
        Endpoint::new(
            PUT,
            "/pools/{pool}/backends/{address}/weight",
            OPERATE,
            "Change the weight of a backend, until its configured settings change.",
            overrides::weight,
        ),
        Endpoint::new(
            DELETE,
            "/pools/{pool}/backends/{address}/override",
            OPERATE,
            "Remove the override of a backend.",
            overrides::end,
        ),
    ]
}

fn of_the_cache_and_the_log() -> Vec<Endpoint> {
    vec![
        Endpoint::new(GET, "/cache", READ, "What the caches of routes did, and the stores.", cache_state::state),
        Endpoint::new(GET, "/cache/top", READ, "The largest or most requested stored responses.", cache_state::top),
        Endpoint::new(POST, "/cache/purge", OPERATE, "Purge stored responses.", cache_purge::purge),
        Endpoint::new(GET, "/mirrors", READ, "What happened to copies of requests.", mirrors::all),
        Endpoint::new(GET, "/events", READ, "The last events.", log::events),
        Endpoint::new(GET, "/log-level", READ, "The log level.", log::level),
        Endpoint::new(PUT, "/log-level", ADMIN, "Set the log level, until the process ends.", log::set_level),
        Endpoint::new(GET, "/openapi.json", READ, "This API as an OpenAPI 3.1 document.", openapi_document),
    ]
}

fn of_requests() -> Vec<Endpoint> {
    vec![
        Endpoint::new(GET, "/requests", READ, "Requests that the recorder has kept.", requests::list),
        Endpoint::new(
            GET,
            "/requests/{id}",
            READ,
            "What happened to a request, and what would happen now.",
            requests::one,
        ),
    ]
}

/// The table as a service.
pub(super) fn router(api: Api) -> Router {
    let routed = endpoints().into_iter().fold(Router::new(), |router, row| {
        let required = row.role;
        let guard = middleware::from_fn(move |request, next| caller::guard(required, request, next));
        router.route(row.path, row.serve.route_layer(guard))
    });
    let guard = middleware::from_fn(move |request, next| caller::guard(READ, request, next));
    routed
        .route(metrics::PATH, get(metrics::metrics).route_layer(guard.clone()))
        .route(requests::TAP, get(requests::tap).route_layer(guard))
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
