//! The selection preview: which backend a request would get, and the reason why it would not get each other one.
//! No request is sent or counted.
//!
//! The policy chooses 1,000 times for the same request, with a copy of its state and the current state of the
//! backends. The chance of a backend is its share of these draws. A preview costs as much as a thousand picks, so
//! only operators can request one.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use fastrand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::backend_address::BackendAddress;
use crate::base::units::Zone;
use crate::http::rejection::Rejection;
use crate::pool::admission::breaker::Passing;
use crate::pool::admission::circuit::CircuitState;
use crate::pool::endpoint::Endpoint;
use crate::pool::health::state::Health;
use crate::pool::live::Pool;
use crate::pool::operator::backends::ListedBackend;
use crate::pool::operator::overrides::State;
use crate::pool::selection::choice::{PreviewMember, SelectionRequest, percent};
use crate::pool::selection::key::Key;
use crate::pool::selection::zone_preference::ZonePreference;

/// The number of draws.
const DRAWS: usize = 1000;

/// The selection preview of a pool for one request.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectionPreview {
    /// The backends, ordered by address.
    pub candidates: Vec<Candidate>,
    /// The rejection, if no backend can be picked.
    pub rejection: Option<Rejection>,
    /// The zone preference; `None` if the pool has none.
    pub zones: Option<ZonePreference>,
}

/// A backend in the preview.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// Its address.
    pub address: BackendAddress,
    /// Its share of the traffic relative to the others.
    pub weight: u32,
    /// Whether it takes traffic only when too few primary backends are available.
    pub backup: bool,
    /// Its zone; missing if it has none.
    #[serde(default)]
    pub zone: Option<Zone>,
    /// The source that found it; missing if the configuration names it.
    #[serde(default)]
    pub source: Option<String>,
    /// How long this process has known it, in seconds.
    #[serde(default)]
    pub age_seconds: u64,
    /// Its administrative state.
    pub state: State,
    /// Its health according to health checks.
    pub health: Health,
    /// Whether passive health has ejected it.
    pub ejected: bool,
    /// Its circuit breaker; missing if the pool has none.
    pub circuit: Option<CircuitState>,
    /// Its requests in flight, for this process.
    pub in_flight: u32,
    /// Its recent latency in milliseconds: a moving average that rises quickly and decays slowly.
    /// Missing before its first response.
    pub latency_ms: Option<f64>,
    /// The part of its share that it gets during slow start, from 0 to 1; 1 after slow start.
    pub slow_start_factor: f64,
    /// The value by which the policy compares backends; lower is better. Missing if the policy does not compare
    /// them.
    pub score: Option<f64>,
    /// The probability that it is picked, from 0 to 1.
    pub chance: f64,
    /// The reason why it is not picked; empty if it can be picked.
    pub reason: String,
}

impl Pool {
    /// Which share of the requests each zone gets at present. `None` if the pool has no zone preference: `server.zone` is
    /// not set, no primary backend is in that zone, all of them are, or none is available.
    #[must_use]
    pub fn zone_preference(&self, now: Instant) -> Option<ZonePreference> {
        self.balancer.zone_preference(now, self.spec.slow_start)
    }

    /// The preview for a request with this key. `affinity` is the score function of
    /// [`Pool::pick_by_affinity`], for a request with session affinity.
    #[must_use]
    pub fn preview(
        &self,
        key: Key,
        affinity: Option<&dyn Fn(BackendAddress) -> Option<u64>>,
        now: Instant,
    ) -> SelectionPreview {
        let not_ejected = |endpoint: &Endpoint| self.accepts_traffic(endpoint);
        let even_ejected = |endpoint: &Endpoint| self.admission.allow(endpoint);
        let draw = |admits: &dyn Fn(&Endpoint) -> bool| {
            let random = Rng::with_seed(0);
            let slow_start = self.spec.slow_start;
            let mut request =
                SelectionRequest { key, now, attempted: &[], random, slow_start, admits, traffic_share: 1.0 };
            self.balancer.preview(&mut request, DRAWS)
        };
        let zones = self.zone_preference(now);
        let mut members = draw(&not_ejected);
        let none_chosen = members.iter().all(|member| member.chosen == 0);
        if none_chosen && !self.admission.is_worth_waiting(|| self.candidates(), &[]) {
            members = draw(&even_ejected);
        }
        let target =
            affinity.and_then(|score| self.affinity_target(&[], score)).map(|(endpoint, _)| endpoint.address());
        let total: usize = members.iter().map(|member| member.chosen).sum();
        let listed = self.backends().into_iter().filter(|found| found.endpoint.weight() > 0);
        let members: HashMap<BackendAddress, PreviewMember> =
            members.into_iter().map(|member| (member.endpoint.address(), member)).collect();
        let candidates = listed.map(|found| {
            let endpoint = &found.endpoint;
            let member = members.get(&endpoint.address());
            let chance = match target {
                Some(address) => f64::from(u8::from(address == endpoint.address())),
                None => member.map_or(0.0, |member| member.chosen as f64 / total.max(1) as f64),
            };
            self.candidate(&found, member, chance, (zones.as_ref(), now))
        });
        let mut candidates: Vec<Candidate> = candidates.collect();
        candidates.sort_by_key(|candidate| candidate.address);
        let none_available = candidates.iter().all(|candidate| candidate.chance == 0.0);
        SelectionPreview { candidates, rejection: none_available.then(|| self.no_backend()), zones }
    }

    fn candidate(
        &self,
        found: &ListedBackend,
        member: Option<&PreviewMember>,
        chance: f64,
        (zones, now): (Option<&ZonePreference>, Instant),
    ) -> Candidate {
        let endpoint = &found.endpoint;
        let latency = endpoint.latency(now);
        let reason = if chance > 0.0 { String::new() } else { self.reason(endpoint, zones, now) };
        Candidate {
            address: endpoint.address(),
            weight: member.map_or(0, |member| member.weight),
            backup: endpoint.is_backup(),
            zone: endpoint.zone(),
            source: found.source().map(ToString::to_string),
            age_seconds: endpoint.age(now).as_secs(),
            state: endpoint.state(),
            health: endpoint.health(),
            ejected: endpoint.passive_health().is_ejected(),
            circuit: self.admission.circuit(endpoint).map(|circuit| circuit.passing(now).into()),
            in_flight: endpoint.in_flight(),
            latency_ms: (!latency.is_zero()).then_some(latency.as_secs_f64() * 1e3),
            slow_start_factor: if self.spec.slow_start.is_zero() {
                1.0
            } else {
                endpoint.slow_start_factor(now, self.spec.slow_start)
            },
            score: member.and_then(|member| member.score),
            chance,
            reason,
        }
    }

    /// The reason why a backend is not picked.
    fn reason(&self, endpoint: &Endpoint, zones: Option<&ZonePreference>, now: Instant) -> String {
        let passing = self.admission.circuit(endpoint).map(|circuit| circuit.passing(now));
        match endpoint.health() {
            _ if endpoint.state() != State::Enabled => endpoint.state().to_string(),
            Health::Unknown => "not checked yet".to_owned(),
            Health::Down => "down".to_owned(),
            Health::Up if let Some(Passing::Nothing(period)) = passing => {
                // Milliseconds fit into 64 bits: a breaker is open for less than five centuries.
                let period = humantime::format_duration(Duration::from_millis(period.as_millis() as u64));
                format!("its circuit breaker is open for {period}")
            }
            Health::Up if !self.admission.allow(endpoint) && self.admission.has_room(endpoint) => {
                "its circuit breaker is half-open and its probes are in flight".to_owned()
            }
            Health::Up if !self.admission.has_room(endpoint) => "its limit of requests in flight is reached".to_owned(),
            Health::Up if endpoint.passive_health().is_ejected() => "ejected by passive health".to_owned(),
            Health::Up if endpoint.is_backup() => "backup, and enough primary backends are available".to_owned(),
            Health::Up if zones.is_some_and(|zones| zones.share_of(endpoint.zone().as_ref()) == Some(0.0)) => {
                "in another zone, which gets no requests of this zone".to_owned()
            }
            Health::Up => "the policy prefers others, or session affinity selects another".to_owned(),
        }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.address, self.health)?;
        if let Some(zone) = &self.zone {
            write!(f, ", zone {zone}")?;
        }
        if let Some(source) = &self.source {
            let age = humantime::format_duration(Duration::from_secs(self.age_seconds));
            write!(f, ", found by {source}, known for {age}")?;
        }
        write!(f, ", weight {}, {} in flight", self.weight, self.in_flight)?;
        if let Some(latency) = self.latency_ms {
            write!(f, ", latency {latency:.1} ms")?;
        }
        if let Some(score) = self.score {
            write!(f, ", score {score:.4}")?;
        }
        if self.slow_start_factor < 1.0 {
            write!(f, ", at {:.0} % of its share", self.slow_start_factor * 100.0)?;
        }
        match self.circuit {
            None | Some(CircuitState::Closed) => {}
            Some(CircuitState::Open) => f.write_str(", circuit open")?,
            Some(CircuitState::HalfOpen) => f.write_str(", circuit half-open")?,
        }
        match self.reason.as_str() {
            "" => write!(f, ": {}", percent(self.chance)),
            reason => write!(f, ": not picked, {reason}"),
        }
    }
}
