//! Endpoints for the active configuration and its routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::context::Api;
use super::problem::Problem;
use crate::base::units::{PoolName, RouteName, Timestamp};

/// The active configuration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// Its file; missing if it came from none.
    pub file: Option<String>,
    /// The SHA-256 of the file in hexadecimal digits, as printed by sha256sum.
    pub sha256: String,
    /// The number of the configuration in this process, from 1.
    pub generation: u64,
    /// When the configuration became active.
    pub applied: Timestamp,
    /// The configuration. Values of headers are hidden, and variables are shown by name.
    pub written: Value,
}

/// All routes, in the order of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Routes {
    /// The routes.
    pub routes: Vec<Route>,
}

/// One route.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// What it matches, in one line: methods, host and path.
    pub matches: String,
    /// Its pools.
    pub pools: Vec<Share>,
    /// The rate limit of the route as text.
    pub rate_limit: Option<String>,
    /// Whether it has session affinity.
    pub sticky: bool,
}

/// A pool and its share of a route.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// The pool.
    pub pool: PoolName,
    /// Its share relative to the others.
    pub weight: u32,
}

pub(super) async fn read(api: Api, (): ()) -> Result<Configuration, Problem> {
    let active = api.live.active.load();
    Ok(Configuration {
        file: active.file.as_ref().map(|file| file.display().to_string()),
        sha256: active.shown.sha256.clone(),
        generation: active.generation,
        applied: active.applied,
        written: active.shown.written.clone(),
    })
}

pub(super) async fn routes(api: Api, (): ()) -> Result<Routes, Problem> {
    let snapshot = api.live.snapshot.load();
    let routes = snapshot.routes.iter().map(|(matcher, route)| Route {
        name: route.name.clone(),
        matches: matcher.to_string(),
        pools: route
            .targets
            .shares()
            .map(|(weight, target)| Share { pool: target.pool.name().clone(), weight })
            .collect(),
        rate_limit: route.limiter.as_ref().map(|limiter| limiter.spec().to_string()),
        sticky: route.sticky.is_some(),
    });
    Ok(Routes { routes: routes.collect() })
}
