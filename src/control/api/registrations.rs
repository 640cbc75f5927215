//! Endpoints that register backends in pools with the source `api`.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::context::Api;
use super::description::Description;
use super::input::{Body, Input, Path, Query};
use super::pools::BackendPath;
use super::problem::{Cause, Problem};
use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::units::{Period, PoolName, Timestamp};
use crate::discovery::source::api::{Condition, Registered, Registration, Registry, Rejected, Settings};
use crate::pool::WEIGHT_MAX;
use crate::pool::operator::overrides::State;

/// The shortest time to live.
const TTL_MIN: Duration = Duration::from_secs(1);
/// The longest wait for the end of the requests in flight.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// How often the requests in flight are examined.
const POLL: Duration = Duration::from_millis(20);
/// How long a registration may take to reach the pool. Then the response does not wait any longer.
const APPLY: Duration = Duration::from_secs(1);

/// A registered backend.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RegisteredBackend {
    /// Its pool.
    pub pool: PoolName,
    /// Its address.
    pub address: BackendAddress,
    /// Its settings.
    #[serde(flatten)]
    pub settings: Settings,
    /// When it ends unless it is renewed; missing without a time to live.
    pub expires: Option<Timestamp>,
    /// Changes with each change of the settings. Also the entity tag of the response.
    pub revision: u64,
}

/// A registration that has ended.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Deregistered {
    /// The pool.
    pub pool: PoolName,
    /// The address of the backend.
    pub address: BackendAddress,
    /// Requests that are still in flight at it, for this process.
    pub in_flight: u32,
}

/// How the end of a registration is awaited.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Wait {
    /// The response waits at most so long until the backend has no requests in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<Period>,
}

/// The condition of a write: `If-Match` or `If-None-Match`.
pub struct Precondition(Condition);

impl Input for Precondition {
    fn describe(description: &mut Description, _: &mut SchemaGenerator) {
        let parameter = |name: &str, text: &str| json!({ "name": name, "in": "header", "required": false, "description": text, "schema": { "type": "string" } });
        let matching = "Entity tags of registrations, of which the current one must be one; `*` for any.";
        description.parameters.push(parameter("If-Match", matching));
        description.parameters.push(parameter("If-None-Match", "`*`: there must be no registration yet."));
    }
}

impl FromRequestParts<Api> for Precondition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        condition(&parts.headers).map(Self)
    }
}

fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let malformed = |name: HeaderName| Problem::new(Cause::Malformed, format!("`{name}` is not valid here"));
    let values = |name: HeaderName| {
        let all: Option<Vec<&str>> = headers.get_all(&name).iter().map(|value| value.to_str().ok()).collect();
        let all = all.ok_or_else(|| malformed(name.clone()))?.join(",");
        Ok(all.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect::<Vec<_>>())
    };
    let (matching, absent) = (values(header::IF_MATCH)?, values(header::IF_NONE_MATCH)?);
    match (matching.as_slice(), absent.as_slice()) {
        ([], []) => Ok(Condition::Any),
        ([], [any]) if any == "*" => Ok(Condition::Absent),
        ([], _) => Err(malformed(header::IF_NONE_MATCH)),
        ([any], []) if any == "*" => Ok(Condition::Match(Vec::new())),
        (tags, []) => {
            // A tag of another form is that of no registration.
            let revision = |tag: &String| tag.trim_matches('"').parse().unwrap_or(u64::MAX);
            Ok(Condition::Match(tags.iter().map(revision).collect()))
        }
        _ => Err(Problem::new(Cause::Malformed, "If-Match and If-None-Match exclude each other")),
    }
}

impl IntoResponse for RegisteredBackend {
    fn into_response(self) -> Response {
        let tag = HeaderValue::try_from(format!("\"{}\"", self.revision));
        let mut response = Json(self).into_response();
        if let Ok(tag) = tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

impl IntoResponse for Deregistered {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

pub(super) async fn register(
    api: Api,
    (Path(which), (Precondition(condition), Body(settings))): (Path<BackendPath>, (Precondition, Body<Settings>)),
) -> Result<RegisteredBackend, Problem> {
    api.check_registration(&which, &settings)?;
    let registry = api.registry(&which.pool)?;
    let (zone, weight) = (settings.zone.clone(), settings.weight);
    let done = registry.register(which.address, settings, &condition, now()).map_err(|r| rejected(&which, r))?;
    if done != Registered::Renewed {
        let (pool, backend, added) = (which.pool.clone(), which.address, done == Registered::Added);
        Event::BackendRegistered { pool, backend, added }.announce();
        api.live.save_overrides().await;
        // A reader of the response finds the backend in the pool.
        api.until(APPLY, || {
            let applied = api.pool(&which.pool).ok().and_then(|pool| pool.backend(which.address));
            applied.is_none_or(|found| found.endpoint.zone() != zone || found.discovered.member.weight != weight)
        })
        .await;
    }
    api.registered(&registry, &which)
}

pub(super) async fn renew(api: Api, Path(which): Path<BackendPath>) -> Result<RegisteredBackend, Problem> {
    let registry = api.registry(&which.pool)?;
    registry.renew(which.address, now()).map_err(|reason| rejected(&which, reason))?;
    api.registered(&registry, &which)
}

pub(super) async fn deregister(
    api: Api,
    (Path(which), (Precondition(condition), Query(wait))): (Path<BackendPath>, (Precondition, Query<Wait>)),
) -> Result<Deregistered, Problem> {
    let registry = api.registry(&which.pool)?;
    let ended = registry.remove(which.address, &condition, now()).map_err(|reason| rejected(&which, reason))?;
    if ended {
        let (pool, backend) = (which.pool.clone(), which.address);
        Event::BackendDeregistered { pool, backend, expired: false }.announce();
        api.live.save_overrides().await;
    }
    // Until no worker selects it any more.
    api.until(APPLY, || api.endpoint(&which).is_some_and(|endpoint| endpoint.state() == State::Enabled)).await;
    if let Some(Period(longest)) = wait.wait {
        api.until(longest.min(WAIT_MAX), || api.endpoint(&which).is_some_and(|endpoint| endpoint.in_flight() > 0))
            .await;
        // A worker that had just selected it has counted its request by now.
        tokio::time::sleep(POLL).await;
    }
    let in_flight = api.endpoint(&which).map_or(0, |endpoint| endpoint.in_flight());
    Ok(Deregistered { pool: which.pool, address: which.address, in_flight })
}

impl Api {
    /// The registrations of a pool.
    fn registry(&self, pool: &PoolName) -> Result<std::sync::Arc<Registry>, Problem> {
        self.pool(pool)?.sources().registry().cloned().ok_or_else(|| {
            let detail = format!("backends of the pool `{pool}` are not registered; add `discover: api` to the pool");
            Problem::new(Cause::NoRegistrations, detail)
        })
    }

    /// Checks what the file of the pool would have to allow.
    fn check_registration(&self, which: &BackendPath, settings: &Settings) -> Result<(), Problem> {
        if settings.weight > WEIGHT_MAX {
            let detail = format!("a weight of {} exceeds {WEIGHT_MAX}", settings.weight);
            return Err(Problem::new(Cause::Malformed, detail));
        }
        if settings.ttl.is_some_and(|ttl| ttl.0 < TTL_MIN) {
            return Err(Problem::new(Cause::Malformed, "`ttl` must be at least 1s"));
        }
        let pool = self.pool(&which.pool)?;
        if let Some(found) = pool.backend(which.address).filter(|found| found.source().is_none()) {
            let detail = format!("the configuration has {} in the pool `{}`", found.target(), which.pool);
            return Err(Problem::new(Cause::Configured, detail));
        }
        pool.sources().check_registration(which.address).map_err(|reason| {
            Problem::new(Cause::AddressRejected, format!("{} is not accepted: {reason}", which.address))
        })
    }

    /// The registration as a response.
    fn registered(&self, registry: &Registry, which: &BackendPath) -> Result<RegisteredBackend, Problem> {
        let now = now();
        let registration = registry.get(which.address, now).filter(|registration| !registration.is_draining);
        let registration = registration.ok_or_else(|| rejected(which, Rejected::Unknown))?;
        Ok(RegisteredBackend::of(which, registration))
    }

    fn endpoint(&self, which: &BackendPath) -> Option<std::sync::Arc<crate::pool::Endpoint>> {
        Some(self.pool(&which.pool).ok()?.backend(which.address)?.endpoint)
    }

    /// Waits while `holds`, at most `longest`.
    async fn until(&self, longest: Duration, holds: impl Fn() -> bool) {
        let waiting = async {
            while holds() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(longest, waiting).await.ok();
    }
}

impl RegisteredBackend {
    fn of(which: &BackendPath, registration: Registration) -> Self {
        let Registration { settings, revision, remaining, .. } = registration;
        let expires = remaining.map(|remaining| Timestamp(Timestamp::now().0 + remaining));
        Self { pool: which.pool.clone(), address: which.address, settings, expires, revision }
    }
}

fn rejected(which: &BackendPath, reason: Rejected) -> Problem {
    let BackendPath { pool, address } = which;
    match reason {
        Rejected::Unknown => {
            Problem::new(Cause::UnknownBackend, format!("{address} is not registered in the pool `{pool}`"))
        }
        Rejected::Condition(None) => {
            Problem::new(Cause::ConditionFailed, format!("{address} is not registered in the pool `{pool}`"))
        }
        Rejected::Condition(Some(revision)) => {
            let detail =
                format!("the registration of {address} in the pool `{pool}` has the entity tag \"{revision}\"");
            Problem::new(Cause::ConditionFailed, detail)
        }
        Rejected::TooMany => {
            Problem::new(Cause::TooManyBackends, format!("the pool `{pool}` has too many registrations"))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the time to live begins with the call")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_is_read_from_both_fields() {
        let read = |fields: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, HeaderValue::from_static(value));
            }
            condition(&headers).map_err(|problem| problem.cause)
        };
        let (is, no) = (header::IF_MATCH, header::IF_NONE_MATCH);
        assert_eq!(read(&[]), Ok(Condition::Any));
        assert_eq!(read(&[(no.clone(), "*")]), Ok(Condition::Absent));
        assert_eq!(read(&[(is.clone(), "*")]), Ok(Condition::Match(Vec::new())));
        assert_eq!(read(&[(is.clone(), "\"3\", \"5\""), (is.clone(), "\"7\"")]), Ok(Condition::Match(vec![3, 5, 7])));
        assert_eq!(read(&[(is.clone(), "W/\"x\"")]), Ok(Condition::Match(vec![u64::MAX])));
        assert_eq!(read(&[(no.clone(), "\"3\"")]), Err(Cause::Malformed));
        assert_eq!(read(&[(is, "*"), (no, "*")]), Err(Cause::Malformed));
    }
}
