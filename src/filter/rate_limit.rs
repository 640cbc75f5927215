//! `rate_limit`: limits of requests by parts of the request, such as an API key, in one or several windows.
//!
//! A request counts in every window, or in none: all are examined before it is counted. The counts are those of
//! [`crate::limit`], in fixed memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::Method;
use schemars::JsonSchema;
use serde::Deserialize;

use super::chain::Chain;
use super::config::{Configuration, Surroundings};
use super::limit_key::Part;
use super::limits::Limits;
use super::{Filter, Request, SharedState, Step};
use crate::base::fault::{Faults, Place};
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::limit;

/// Configuration of the filter.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Filters with the same name count together.
    pub name: Option<String>,
    /// What is counted separately; `client` by default. Several parts are combined.
    pub by: Vec<String>,
    /// The limits, each with its window.
    pub limits: Vec<limit::Config>,
    /// How much a request with a method counts; 1 by default.
    pub cost: BTreeMap<String, u32>,
    /// Whether requests over a limit are rejected.
    pub mode: Mode,
}

/// What happens to requests over a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They are rejected.
    #[default]
    Enforce,
    /// They are only counted, and shown by `l7lb explain --live`.
    Observe,
}

/// The most limits of a filter.
const LIMITS_MAX: usize = 4;
/// The most that a request counts.
const COST_MAX: u32 = 100;

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        if let Some(name) = self.name.as_ref().filter(|name| name.is_empty() || !name.bytes().all(is_name)) {
            let problem = format!("`{name}` cannot be in the field RateLimit");
            faults.add(place.key("name"), problem, "write small letters, digits, `-` and `_`");
        }
        let by = place.key("by");
        let parts = self.by.iter().enumerate().filter_map(|(index, text)| {
            text.parse().map_err(|(problem, hint)| faults.add(by.index(index), problem, hint)).ok()
        });
        let parts: Vec<Part> = parts.collect();
        let specs = self.check_limits(&place.key("limits"), faults);
        let costs = self.check_costs(&specs, &place.key("cost"), faults);
        let (name, by) = (self.name.clone(), if parts.is_empty() { vec![Part::Client] } else { parts });
        let limits = OnceLock::new();
        Some(Arc::new(RateLimit { name, by, specs, costs, mode: self.mode, limits, exceeded: AtomicU64::default() }))
    }
}

impl Config {
    fn check_limits(&self, place: &Place, faults: &mut Faults) -> Vec<limit::Spec> {
        let hint = "write for example `limits: [{ type: sliding_window, limit: 100, window: 1m }]`";
        if self.limits.is_empty() {
            faults.add(place.clone(), "there is no limit", hint);
        }
        if self.limits.len() > LIMITS_MAX {
            faults.add(place.clone(), format!("there are more than {LIMITS_MAX} limits"), "remove some");
        }
        let mut specs = Vec::with_capacity(self.limits.len());
        for (index, limit) in self.limits.iter().enumerate() {
            let place = place.index(index);
            let checked = faults.unless_added(|faults| limit.check(&place, faults));
            if checked == Some(None) {
                faults.add(place, "the limit has no type", hint);
            }
            specs.extend(checked.flatten());
        }
        specs
    }

    fn check_costs(&self, specs: &[limit::Spec], place: &Place, faults: &mut Faults) -> Vec<(Method, u32)> {
        let quota = specs.iter().map(limit::Spec::quota).min().unwrap_or(u32::MAX);
        let mut costs = Vec::with_capacity(self.cost.len());
        for (name, cost) in &self.cost {
            let place = place.key(name);
            if *cost > COST_MAX.min(quota) {
                let problem = format!("{cost} is more than {}, so the request would never pass", COST_MAX.min(quota));
                faults.add(place.clone(), problem, "write a smaller number, or a larger limit");
            }
            match Method::from_bytes(name.as_bytes()) {
                Ok(method) if !name.bytes().any(|byte| byte.is_ascii_lowercase()) => costs.push((method, *cost)),
                _ => faults.add(place, format!("`{name}` is not a method"), "write for example `{ POST: 10 }`"),
            }
        }
        costs
    }
}

/// Reports filters with the same name and different settings.
pub fn check_names<'a>(chains: impl IntoIterator<Item = (Place, &'a Chain)>, faults: &mut Faults) {
    let mut known = BTreeMap::<&str, &Config>::new();
    for (place, chain) in chains {
        for config in chain.0.iter().filter_map(|item| item.config.rate_limit.as_ref()) {
            let Some(name) = &config.name else { continue };
            if *known.entry(name).or_insert(config) != config {
                let problem = format!("filters `rate_limit` with the name `{name}` count together, but differ");
                faults.add(place.clone(), problem, "write the filter once, in a chain under `chains`");
            }
        }
    }
}

/// The filter.
struct RateLimit {
    name: Option<String>,
    by: Vec<Part>,
    specs: Vec<limit::Spec>,
    costs: Vec<(Method, u32)>,
    mode: Mode,
    /// Set when the filter becomes part of a snapshot.
    limits: OnceLock<Arc<Limits>>,
    /// How many requests would have been rejected.
    exceeded: AtomicU64,
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("name", &self.name).field("specs", &self.specs).finish_non_exhaustive()
    }
}

impl RateLimit {
    fn cost(&self, method: &Method) -> u32 {
        self.costs.iter().find(|(known, _)| known == method).map_or(1, |(_, cost)| *cost)
    }

    /// Decides at `now`, and counts the request unless it is an example.
    fn decide(&self, request: &mut Request<'_>, limits: &Limits, now: Instant) -> Result<(), Duration> {
        let cost = self.cost(&request.header.method);
        if cost == 0 {
            return Ok(());
        }
        let key = limits.key(&self.by, request);
        let decided = limits.look(key, cost, now);
        let admitted = decided.is_ok();
        let counts = admitted && !request.facts.is_example;
        let quotas = if counts { limits.count(key, cost, now) } else { limits.quotas(key, now) };
        if self.mode == Mode::Observe {
            if !admitted && !request.facts.is_example {
                self.exceeded.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(());
        }
        let name = self.name.as_deref().unwrap_or("filter");
        request.changes.quotas.extend(quotas.into_iter().map(|quota| quota.named(name)));
        decided
    }
}

impl Filter for RateLimit {
    fn request(&self, request: &mut Request<'_>) -> Step {
        // Every snapshot sets it.
        let Some(limits) = self.limits.get() else {
            let detail = "a limit is not part of a snapshot";
            return Step::Reject(DetailedRejection { rejection: Rejection::Internal, detail });
        };
        #[expect(clippy::disallowed_methods, reason = "the filter is the place where time enters")]
        let now = Instant::now();
        match self.decide(request, limits, now) {
            Ok(()) => Step::Continue,
            Err(retry_after) => {
                let detail = "a limit of the filter rate_limit";
                Step::Reject(DetailedRejection { rejection: Rejection::RateLimited { retry_after }, detail })
            }
        }
    }

    fn describe(&self) -> String {
        let amounts: Vec<String> = self.specs.iter().map(limit::Spec::amount).collect();
        let by: Vec<String> = self.by.iter().map(Part::to_string).collect();
        let observed = match self.mode {
            Mode::Enforce => String::new(),
            Mode::Observe => format!("; observes: {} requests were over it", self.exceeded.load(Ordering::Relaxed)),
        };
        format!("{} by {}{observed}", amounts.join(" and "), by.join(", "))
    }

    fn share_state(&self, shared: &mut SharedState) {
        let limits = match self.limits.get() {
            Some(limits) => Arc::clone(limits),
            None => shared.limits(self.name.as_deref(), &self.specs),
        };
        if let Some(name) = &self.name {
            shared.remember(name, &limits);
        }
        // It is set already if the filter was part of the previous snapshot.
        self.limits.set(limits).ok();
    }
}

#[cfg(test)]
#[path = "rate_limit_tests.rs"]
mod tests;
