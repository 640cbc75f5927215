//! Endpoints for pools and backends with their current state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::Api;
use super::input::{Path, Query};
use super::problem::{Cause, Problem};
use crate::base::backend_address::BackendAddress;
use crate::base::units::{PoolName, Timestamp, Zone};
use crate::discovery::kept::{Kept, Status};
use crate::discovery::labels::Labels;
use crate::pool::admission::breaker;
pub use crate::pool::admission::circuit::CircuitState;
use crate::pool::operator::overrides::{self, Override, State};
use crate::pool::selection::policy::Type;
use crate::pool::selection::zone_preference::ZonePreference;
use crate::pool::{self, Health};

/// The most backends in an error message.
const KNOWN_MAX: usize = 20;

/// All pools, by name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Pools {
    /// The pools.
    pub pools: Vec<Pool>,
}

/// One pool.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// The balancing policy.
    pub balance: Type,
    /// The number of its backends.
    pub backends: usize,
    /// The number of its available backends.
    pub available: usize,
    /// Requests in flight at it, for this process.
    pub in_flight: u32,
    /// Requests queued for `max_in_flight`; missing without that limit.
    pub waiting: Option<usize>,
    /// The sources of its backends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Which share of its requests each zone gets; missing without a zone preference.
    #[serde(default)]
    pub zones: Option<ZonePreference>,
}

/// A source of backends.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// Its name.
    pub source: String,
    /// The backends of its last good list, and those that stay although it does not list them any more.
    pub backends: usize,
    /// Backends that stay although it does not list them any more.
    pub held: usize,
    /// The share of the requests to its backends that its newest list would move, from 0 to 1, if `max_moved` holds that
    /// list back.
    #[serde(default)]
    pub moves: Option<f64>,
    /// Backends that it lists and the pool does not accept.
    pub rejected: usize,
    /// When it last returned a list; missing before the first one.
    pub listed: Option<Timestamp>,
    /// Why it returns none; missing if it works.
    pub failure: Option<String>,
}

/// The selection of backends.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackendQuery {
    /// The backends of this pool only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
}

/// Backends, in the order of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Backends {
    /// The backends.
    pub backends: Vec<Backend>,
}

/// One backend and its state.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Backend {
    /// Its pool.
    pub pool: PoolName,
    /// Its address.
    pub address: BackendAddress,
    /// Whether it may get requests: it is enabled, has a weight, is up, is not ejected, and its circuit is not
    /// open.
    pub available: bool,
    /// Its administrative state.
    pub state: State,
    /// Its health by health checks.
    pub health: Health,
    /// The end of its ejection; missing if it is not ejected.
    pub ejected_until: Option<Timestamp>,
    /// Its circuit breaker; missing if the pool has none.
    pub circuit: Option<Circuit>,
    /// Requests in flight at it, for this process.
    pub in_flight: u32,
    /// Its recent latency in milliseconds: a moving average that rises quickly to peaks. Missing before its
    /// first response.
    pub latency_ms: Option<f64>,
    /// How long it keeps an idle connection, in milliseconds: announced in `Keep-Alive`, or observed. Missing if it
    /// is not known.
    pub idle_limit_ms: Option<u64>,
    /// Its share of the traffic relative to the other backends.
    pub weight: u32,
    /// The effective part of `weight` during slow start.
    pub effective_weight: f64,
    /// Whether it takes traffic only when too few primary backends are available.
    pub backup: bool,
    /// Its zone; missing if it has none.
    #[serde(default)]
    pub zone: Option<Zone>,
    /// The source that found it; missing if the configuration names it.
    pub source: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The operator override; missing without one.
    #[serde(rename = "override")]
    pub overridden: Option<Override>,
    /// Its configured settings.
    pub configured: ConfiguredSettings,
}

/// The configured settings of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfiguredSettings {
    /// `address:port`, `name:port` or `unix:/path`.
    pub address: String,
    /// Its weight.
    pub weight: u32,
    /// Whether it is a backup.
    pub backup: bool,
    /// Whether it is drained.
    pub drain: bool,
}

/// A circuit breaker.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Circuit {
    /// Its state.
    pub state: CircuitState,
    /// The end of the open state; only while it is open.
    pub open_until: Option<Timestamp>,
}

/// The address of a backend in the API.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BackendPath {
    /// Its pool.
    pub pool: PoolName,
    /// Its address.
    pub address: BackendAddress,
}

/// A pool in the API.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PoolPath {
    /// Its name.
    pub pool: PoolName,
}

/// Held lists that take effect.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AcceptedLists {
    /// Their sources; empty if none was held.
    pub sources: Vec<String>,
}

/// The current time on both clocks.
#[derive(Clone, Copy)]
struct Moment {
    instant: Instant,
    timestamp: Timestamp,
}

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "the response describes the state at this moment")]
    fn now() -> Self {
        Self { instant: Instant::now(), timestamp: Timestamp::now() }
    }

    fn after(self, period: Duration) -> Timestamp {
        Timestamp(self.timestamp.0 + period)
    }
}

impl Pool {
    fn of(pool: &pool::Pool, now: Moment) -> Self {
        let backends = pool.backends();
        let available = backends.iter().filter(|found| found.endpoint.may_get_requests(now.instant)).count();
        Self {
            name: pool.name().clone(),
            balance: pool.spec().balance.r#type,
            backends: backends.len(),
            available,
            in_flight: pool.in_flight(),
            waiting: pool.queued_requests(),
            sources: pool.sources().iter().map(|kept| Source::of(kept)).collect(),
            zones: pool.zone_preference(now.instant),
        }
    }
}

impl Source {
    fn of(kept: &Kept) -> Self {
        let Status { listed, failure, held, moves, rejected } = kept.status();
        Self {
            source: kept.name().to_string(),
            backends: kept.current().len(),
            held,
            moves,
            rejected: rejected.map_or(0, |(count, _)| count),
            listed,
            failure,
        }
    }
}

impl Backend {
    fn of(pool: &pool::Pool, found: &pool::ListedBackend, now: Moment) -> Self {
        let endpoint = &found.endpoint;
        let latency = endpoint.latency(now.instant);
        let weight = endpoint.weight();
        let slow_start_factor = endpoint.slow_start_factor(now.instant, pool.spec().slow_start);
        let ejected = endpoint.passive_health().ejected_until();
        Self {
            pool: pool.name().clone(),
            address: endpoint.address(),
            available: endpoint.may_get_requests(now.instant),
            state: endpoint.state(),
            health: endpoint.health(),
            ejected_until: ejected.map(|until| now.after(until.saturating_duration_since(now.instant))),
            circuit: endpoint.circuit().map(|circuit| Circuit::of(circuit.passing(now.instant), now)),
            in_flight: endpoint.in_flight(),
            latency_ms: (!latency.is_zero()).then(|| (latency.as_secs_f64() * 1e6).round() / 1e3),
            idle_limit_ms: endpoint
                .idle_limit()
                .get()
                .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            weight,
            effective_weight: (f64::from(weight) * slow_start_factor * 1e3).round() / 1e3,
            source: found.source().map(ToString::to_string),
            labels: found.discovered.labels.clone(),
            overridden: endpoint.active_override(),
            backup: endpoint.is_backup(),
            zone: endpoint.zone(),
            configured: configured(found),
        }
    }
}

impl Circuit {
    fn of(state: breaker::Passing, now: Moment) -> Self {
        let (state, open_until) = match state {
            breaker::Passing::All => (CircuitState::Closed, None),
            breaker::Passing::Nothing(period) => (CircuitState::Open, Some(now.after(period))),
            breaker::Passing::Probes => (CircuitState::HalfOpen, None),
        };
        Self { state, open_until }
    }
}

/// The configured settings of a backend.
pub(super) fn configured(found: &pool::ListedBackend) -> ConfiguredSettings {
    let overrides::ConfiguredSettings { backup, drain, weight } = found.endpoint.configured();
    ConfiguredSettings { address: found.target().to_string(), weight, backup, drain }
}

impl Api {
    /// The pool with this name.
    pub(super) fn pool(&self, name: &PoolName) -> Result<Arc<pool::Pool>, Problem> {
        let snapshot = self.live.snapshot.load();
        let found = snapshot.pools.get(name).cloned();
        found.ok_or_else(|| {
            let known: Vec<&str> = snapshot.pools.keys().map(PoolName::as_str).collect();
            Problem::new(Cause::UnknownPool, format!("there is no pool `{name}`; known here: {}", known.join(", ")))
        })
    }

    /// The backend and its state.
    pub(super) fn backend(&self, which: &BackendPath) -> Result<Backend, Problem> {
        let pool = self.pool(&which.pool)?;
        let found = pool.backend(which.address).ok_or_else(|| {
            let backends = pool.backends();
            let known: Vec<&str> = backends.iter().take(KNOWN_MAX).map(|found| found.endpoint.address_text()).collect();
            let problem =
                format!("the pool `{}` has no backend {}; it has {}", which.pool, which.address, known.join(", "));
            Problem::new(Cause::UnknownBackend, problem)
        })?;
        Ok(Backend::of(&pool, &found, Moment::now()))
    }
}

pub(super) async fn all(api: Api, (): ()) -> Result<Pools, Problem> {
    let now = Moment::now();
    Ok(Pools { pools: api.live.snapshot.load().pools.values().map(|pool| Pool::of(pool, now)).collect() })
}

pub(super) async fn backends(api: Api, Query(of): Query<BackendQuery>) -> Result<Backends, Problem> {
    let now = Moment::now();
    let pools = match &of.pool {
        Some(name) => vec![api.pool(name)?],
        None => api.live.snapshot.load().pools.values().cloned().collect(),
    };
    let list_of =
        |pool: &Arc<pool::Pool>| pool.backends().iter().map(|found| Backend::of(pool, found, now)).collect::<Vec<_>>();
    Ok(Backends { backends: pools.iter().flat_map(list_of).collect() })
}

/// Lets the held lists of a pool take effect.
pub(super) async fn accept(api: Api, Path(which): Path<PoolPath>) -> Result<AcceptedLists, Problem> {
    let pool = api.pool(&which.pool)?;
    let accepted = pool.sources().iter().filter(|kept| kept.accept_held());
    Ok(AcceptedLists { sources: accepted.map(|kept| kept.name().to_string()).collect() })
}

pub(super) async fn backend(api: Api, Path(which): Path<BackendPath>) -> Result<Backend, Problem> {
    api.backend(&which)
}
