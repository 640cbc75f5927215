//! What is in force: the configuration as it was written, and the routes that came of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Api, Problem};
use crate::base::units::{PoolName, RouteName, Timestamp};

/// The configuration in force.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// The file that it came from; nothing where it came from none.
    pub file: Option<String>,
    /// The SHA-256 of the file as it was read, in hexadecimal digits, as sha256sum prints it.
    pub sha256: String,
    /// Counts the configurations that were in force in this process, from 1.
    pub generation: u64,
    /// Since when it is in force.
    pub applied: Timestamp,
    /// What was written. Values of header fields are hidden, and variables are shown by their names.
    pub written: Value,
}

/// All routes, in the order of the file.
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
    /// What it takes, in one line: methods, host and path.
    pub takes: String,
    /// The pools that answer.
    pub pools: Vec<Share>,
    /// The limit of this route alone, in words.
    pub rate_limit: Option<String>,
    /// Whether clients are bound to backends or pools.
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
    let in_force = api.live.in_force.load();
    Ok(Configuration {
        file: in_force.file.as_ref().map(|file| file.display().to_string()),
        sha256: in_force.shown.sha256.clone(),
        generation: in_force.generation,
        applied: in_force.applied,
        written: in_force.shown.written.clone(),
    })
}

pub(super) async fn routes(api: Api, (): ()) -> Result<Routes, Problem> {
    let snapshot = api.live.snapshot.load();
    let routes = snapshot.routes.iter().map(|(matcher, route)| Route {
        name: route.name.clone(),
        takes: matcher.to_string(),
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
