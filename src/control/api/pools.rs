//! Pools and their backends, with all that is known about them at this moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{Path, Query};
use super::{Api, Cause, Problem};
use crate::base::units::{PoolName, Timestamp};
use crate::pool::admission::breaker;
pub use crate::pool::admission::circuit::CircuitState;
use crate::pool::operator::overrides::{self, Override, State};
use crate::pool::selection::policy::Type;
use crate::pool::{self, Endpoint, Health};

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
    /// How a backend is chosen.
    pub balance: Type,
    /// How many backends it has.
    pub backends: usize,
    /// How many of them take requests.
    pub available: usize,
    /// How many requests it is working on for this process.
    pub in_flight: u32,
    /// How many requests wait for a place in `max_in_flight`; nothing without such a limit.
    pub waiting: Option<usize>,
}

/// Which backends.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Of {
    /// Those of this pool alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
}

/// Backends, in the order of the file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Backends {
    /// The backends.
    pub backends: Vec<Backend>,
}

/// One backend, as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Backend {
    /// Its pool.
    pub pool: PoolName,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether a request may be sent to it now: it is enabled and has a weight, it is up, it is not ejected
    /// and its circuit is not open.
    pub available: bool,
    /// Whether it is to have requests.
    pub state: State,
    /// What its health checks say.
    pub health: Health,
    /// Until when its traffic has condemned it; nothing while it has not.
    pub ejected_until: Option<Timestamp>,
    /// Its circuit breaker; nothing where the pool has none.
    pub circuit: Option<Circuit>,
    /// How many requests it is working on for this process.
    pub in_flight: u32,
    /// How long it takes to answer lately, in milliseconds: a moving average that jumps to peaks. Nothing
    /// before its first answer.
    pub latency_ms: Option<f64>,
    /// Its share of the traffic relative to the other backends.
    pub weight: u32,
    /// What is left of `weight` while it starts slowly.
    pub effective_weight: f64,
    /// Whether it takes traffic only when too few primaries can.
    pub backup: bool,
    /// What an operator says instead of the file; nothing where the file is followed.
    #[serde(rename = "override")]
    pub overridden: Option<Override>,
    /// What the file says.
    pub written: Written,
}

/// What the file says of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Written {
    /// `address:port` or `name:port`.
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
    /// What passes.
    pub state: CircuitState,
    /// Until when nothing passes; only while it is open.
    pub open_until: Option<Timestamp>,
}

/// Which backend.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Which {
    /// Its pool.
    pub pool: PoolName,
    /// Where it listens.
    pub address: SocketAddr,
}

/// This moment, on both clocks.
#[derive(Clone, Copy)]
struct Moment {
    instant: Instant,
    timestamp: Timestamp,
}

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "an answer is about the moment in which it is given")]
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
        let available = backends.iter().filter(|found| is_available(&found.endpoint, now)).count();
        Self {
            name: pool.name().clone(),
            balance: pool.spec().balance.r#type,
            backends: backends.len(),
            available,
            in_flight: pool.in_flight(),
            waiting: pool.queued_requests(),
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
            available: is_available(endpoint, now),
            state: endpoint.state(),
            health: endpoint.health(),
            ejected_until: ejected.map(|until| now.after(until.saturating_duration_since(now.instant))),
            circuit: endpoint.circuit().map(|circuit| Circuit::of(circuit.passing(now.instant), now)),
            in_flight: endpoint.in_flight(),
            latency_ms: (!latency.is_zero()).then(|| (latency.as_secs_f64() * 1e6).round() / 1e3),
            weight,
            effective_weight: (f64::from(weight) * slow_start_factor * 1e3).round() / 1e3,
            overridden: endpoint.active_override(),
            backup: endpoint.is_backup(),
            written: written(found),
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

/// What the file says of a backend.
pub(super) fn written(found: &pool::ListedBackend) -> Written {
    let overrides::ConfiguredSettings { backup, drain, weight } = found.endpoint.configured();
    Written { address: found.target.to_string(), weight, backup, drain }
}

fn is_available(endpoint: &Endpoint, now: Moment) -> bool {
    let open = |circuit: Arc<pool::admission::circuit::Circuit>| {
        matches!(circuit.passing(now.instant), breaker::Passing::Nothing(_))
    };
    endpoint.is_available()
        && endpoint.weight() > 0
        && !endpoint.passive_health().is_ejected()
        && !endpoint.circuit().is_some_and(open)
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

    /// The backend, as it is now.
    pub(super) fn backend(&self, which: &Which) -> Result<Backend, Problem> {
        let pool = self.pool(&which.pool)?;
        let backends = pool.backends();
        let found = backends.iter().find(|found| found.endpoint.address() == which.address);
        let found = found.ok_or_else(|| {
            let known: Vec<&str> = backends.iter().map(|found| found.endpoint.address_text()).collect();
            let problem =
                format!("the pool `{}` has no backend {}; it has {}", which.pool, which.address, known.join(", "));
            Problem::new(Cause::UnknownBackend, problem)
        })?;
        Ok(Backend::of(&pool, found, Moment::now()))
    }
}

pub(super) async fn all(api: Api, (): ()) -> Result<Pools, Problem> {
    let now = Moment::now();
    Ok(Pools { pools: api.live.snapshot.load().pools.values().map(|pool| Pool::of(pool, now)).collect() })
}

pub(super) async fn backends(api: Api, Query(of): Query<Of>) -> Result<Backends, Problem> {
    let now = Moment::now();
    let pools = match &of.pool {
        Some(name) => vec![api.pool(name)?],
        None => api.live.snapshot.load().pools.values().cloned().collect(),
    };
    let told =
        |pool: &Arc<pool::Pool>| pool.backends().iter().map(|found| Backend::of(pool, found, now)).collect::<Vec<_>>();
    Ok(Backends { backends: pools.iter().flat_map(told).collect() })
}

pub(super) async fn backend(api: Api, Path(which): Path<Which>) -> Result<Backend, Problem> {
    api.backend(&which)
}
