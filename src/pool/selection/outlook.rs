//! Who would be picked for a request, and why not the others: asked of what picks, without picking.
//!
//! The policy is asked many times for the same request, in a copy of its own so that nobody's turn is
//! taken, among the very backends as they are. What it answers most often is who would most likely be
//! picked. That costs as much as a thousand picks, so it is for people who ask.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::rejection::Rejection;
use crate::pool::admission::breaker::Passing;
use crate::pool::admission::circuit::CircuitState;
use crate::pool::endpoint::Endpoint;
use crate::pool::health::state::Health;
use crate::pool::live::Pool;
use crate::pool::operator::administration::State;
use crate::pool::selection::choice::{Ask, Prospect};
use crate::pool::selection::key::Key;

/// How often the policy is asked.
const DRAWS: usize = 1000;

/// What is to be expected of a pool for one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// The backends, in the order of their addresses.
    pub candidates: Vec<Candidate>,
    /// Why none can be picked, where that is so.
    pub refusal: Option<Rejection>,
}

/// A backend before a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the traffic relative to the others.
    pub weight: u32,
    /// Whether it takes traffic only when too few others can.
    pub backup: bool,
    /// Whether it is to have requests.
    pub state: State,
    /// What its health checks say.
    pub health: Health,
    /// Whether its traffic condemned it for now.
    pub ejected: bool,
    /// Its circuit breaker; nothing where the pool has none.
    pub circuit: Option<CircuitState>,
    /// Requests that it is working on for this process.
    pub in_flight: u32,
    /// How long it takes to answer lately, in milliseconds: a moving average that jumps to peaks. Nothing
    /// before its first answer.
    pub latency_ms: Option<f64>,
    /// How much of its share it has since it came back, from 0 to 1.
    pub warmth: f64,
    /// What the policy compares, lower is better; nothing where it compares nothing.
    pub score: Option<f64>,
    /// How likely it is picked, from 0 to 1.
    pub chance: f64,
    /// Why it cannot be picked, in words; empty where it can.
    pub obstacle: String,
}

impl Pool {
    /// What would become of a request with this key; nothing is counted. `bound` scores the backends that
    /// its client is bound to, the highest of which it is to have if that can be.
    #[must_use]
    pub fn outlook(&self, key: Key, bound: Option<&dyn Fn(SocketAddr) -> Option<u64>>, now: Instant) -> Outlook {
        let well = |endpoint: &Endpoint| self.is_well(endpoint);
        let anybody = |endpoint: &Endpoint| self.bounds.allow(endpoint);
        let look = |admits: &dyn Fn(&Endpoint) -> bool| {
            let random = Rng::with_seed(0);
            let mut ask = Ask { key, now, tried: &[], random, slow_start: self.spec.slow_start, admits };
            self.balancer.outlook(&mut ask, DRAWS)
        };
        let mut prospects = look(&well);
        if prospects.iter().all(|prospect| prospect.chosen == 0) {
            prospects = look(&anybody);
        }
        let bound = bound.and_then(|score| self.preferred(&[], score)).map(|(endpoint, _)| endpoint.address());
        let total: usize = prospects.iter().map(|prospect| prospect.chosen).sum();
        let candidates = self.candidates().into_iter().map(|endpoint| {
            let prospect = prospects.iter().find(|prospect| Arc::ptr_eq(&prospect.endpoint, &endpoint));
            let chance = match bound {
                Some(address) => f64::from(u8::from(address == endpoint.address())),
                None => prospect.map_or(0.0, |prospect| prospect.chosen as f64 / total.max(1) as f64),
            };
            self.candidate(&endpoint, prospect, chance, now)
        });
        let mut candidates: Vec<Candidate> = candidates.collect();
        candidates.sort_by_key(|candidate| candidate.address);
        let nobody = candidates.iter().all(|candidate| candidate.chance == 0.0);
        Outlook { candidates, refusal: nobody.then(|| self.no_backend()) }
    }

    fn candidate(&self, endpoint: &Endpoint, prospect: Option<&Prospect>, chance: f64, now: Instant) -> Candidate {
        let latency = endpoint.latency(now);
        let obstacle = if chance > 0.0 { String::new() } else { self.obstacle(endpoint, now) };
        Candidate {
            address: endpoint.address(),
            weight: prospect.map_or(0, |prospect| prospect.weight),
            backup: endpoint.is_backup(),
            state: endpoint.state(),
            health: endpoint.health(),
            ejected: endpoint.observed().is_ejected(),
            circuit: self.bounds.circuit(endpoint).map(|circuit| circuit.passing(now).into()),
            in_flight: endpoint.in_flight(),
            latency_ms: (!latency.is_zero()).then_some(latency.as_secs_f64() * 1e3),
            warmth: if self.spec.slow_start.is_zero() { 1.0 } else { endpoint.warmth(now, self.spec.slow_start) },
            score: prospect.and_then(|prospect| prospect.score),
            chance,
            obstacle,
        }
    }

    /// Why a backend is not picked.
    fn obstacle(&self, endpoint: &Endpoint, now: Instant) -> String {
        let passing = self.bounds.circuit(endpoint).map(|circuit| circuit.passing(now));
        match endpoint.health() {
            _ if endpoint.state() != State::Enabled => endpoint.state().to_string(),
            Health::Unknown => "not checked yet".to_owned(),
            Health::Down => "down".to_owned(),
            Health::Up if let Some(Passing::Nothing(period)) = passing => {
                // A breaker is open for less than five centuries.
                let period = humantime::format_duration(Duration::from_millis(period.as_millis() as u64));
                format!("its circuit breaker is open for {period}")
            }
            Health::Up if !self.bounds.allow(endpoint) && self.bounds.has_room(endpoint) => {
                "its circuit breaker is probing".to_owned()
            }
            Health::Up if !self.bounds.has_room(endpoint) => "it has as many requests as it may".to_owned(),
            Health::Up if endpoint.observed().is_ejected() => "ejected for what its traffic says".to_owned(),
            Health::Up if endpoint.is_backup() => "a backup, and enough others can".to_owned(),
            Health::Up => "others are better, or the client is bound elsewhere".to_owned(),
        }
    }
}

/// A chance as people say it: what is not certain is not called so.
#[must_use]
pub fn percent(chance: f64) -> String {
    match chance * 100.0 {
        percent if percent > 0.0 && percent < 0.5 => "< 1 %".to_owned(),
        percent if (99.5..100.0).contains(&percent) => "> 99 %".to_owned(),
        percent => format!("{percent:.0} %"),
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}, weight {}, {} in flight", self.address, self.health, self.weight, self.in_flight)?;
        if let Some(latency) = self.latency_ms {
            write!(f, ", latency {latency:.1} ms")?;
        }
        if let Some(score) = self.score {
            write!(f, ", score {score:.4}")?;
        }
        if self.warmth < 1.0 {
            write!(f, ", at {:.0} % of its share", self.warmth * 100.0)?;
        }
        match self.circuit {
            None | Some(CircuitState::Closed) => {}
            Some(CircuitState::Open) => f.write_str(", circuit open")?,
            Some(CircuitState::HalfOpen) => f.write_str(", circuit half-open")?,
        }
        match self.obstacle.as_str() {
            "" => write!(f, ": {}", percent(self.chance)),
            obstacle => write!(f, ": not picked, {obstacle}"),
        }
    }
}
