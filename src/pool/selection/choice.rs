//! The interface between the balancer and a policy: members, the request that needs one of them, and the
//! [`Policy`] trait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::pool::endpoint::Endpoint;
use crate::pool::selection::key::{Key, mix};

/// A backend and its weight.
#[derive(Clone)]
pub struct Member {
    /// The backend.
    pub endpoint: Arc<Endpoint>,
    /// Its share relative to the others; at least 1.
    pub weight: u32,
}

/// A balancing policy. It chooses one of the members that it was built for.
pub trait Policy: Send + Sync + Sized + 'static {
    /// The settings of the policy.
    type Config: Default + Send + Sync;

    /// Prepares the policy for `members`. Called again when discovery finds different backends.
    fn build(config: &Self::Config, members: &[Member]) -> Self;

    /// The index of a member that accepts `request`; `None` if there is none. `members` must be those that the
    /// policy was built for.
    fn choose(&self, members: &[Member], request: &mut SelectionRequest<'_>) -> Option<usize>;

    /// The value by which the policy compares members, lower is better; `None` if it compares none.
    fn score(&self, _member: &Member, _now: Instant) -> Option<f64> {
        None
    }
}

/// A request that needs a backend.
pub struct SelectionRequest<'a> {
    /// Its key, for policies with keys.
    pub key: Key,
    /// The current time.
    pub now: Instant,
    /// The backends of its earlier attempts.
    pub attempted: &'a [Arc<Endpoint>],
    /// The random number generator.
    pub random: Rng,
    /// How long a backend takes to reach its full share after it comes up; zero without slow start.
    pub slow_start: Duration,
    /// Whether passive health and admission allow a backend.
    pub admits: &'a dyn Fn(&Endpoint) -> bool,
    /// The share of the requests of the pool that the members get together, from 0 to 1. Below 1 with a zone preference.
    pub traffic_share: f64,
}

impl SelectionRequest<'_> {
    /// Whether `member` accepts the request: it is available, was not attempted, and slow start allows it.
    pub fn accepts(&mut self, member: &Member) -> bool {
        let endpoint = &member.endpoint;
        endpoint.is_available()
            && (self.admits)(endpoint)
            && !self.attempted.iter().any(|attempted| attempted.address() == endpoint.address())
            && (self.slow_start.is_zero() || self.is_warm(endpoint))
    }

    /// Slow start: a backend that has come up takes part in a growing share of selections. Which ones is random.
    /// For a request with a key it depends on the key, so that each key moves to the backend only once.
    fn is_warm(&mut self, endpoint: &Endpoint) -> bool {
        let slow_start_factor = endpoint.slow_start_factor(self.now, self.slow_start);
        if slow_start_factor >= 1.0 {
            return true;
        }
        let draw = if self.key == Key::NONE {
            self.random.f64()
        } else {
            // An f64 holds 53 bits exactly.
            (mix(self.key.0 ^ Key::of(endpoint.address_text().as_bytes()).0) >> 11) as f64 / (1_u64 << 53) as f64
        };
        draw < slow_start_factor
    }
}

/// Chooses among all members that accept the request, at random by weight. It examines every member, so policies
/// use it only when few members are available.
pub(in crate::pool) fn choose_any(members: &[Member], request: &mut SelectionRequest<'_>) -> Option<usize> {
    let mut chosen = None;
    let mut total = 0;
    for (index, member) in members.iter().enumerate() {
        if request.accepts(member) {
            total += u64::from(member.weight);
            if request.random.u64(..total.max(1)) < u64::from(member.weight) {
                chosen = Some(index);
            }
        }
    }
    chosen
}

/// A member in a selection preview.
pub struct PreviewMember {
    /// The backend.
    pub endpoint: Arc<Endpoint>,
    /// Its share relative to the others.
    pub weight: u32,
    /// The value by which the policy compares members, lower is better; `None` if it compares none.
    pub score: Option<f64>,
    /// The number of draws that chose it.
    pub chosen: usize,
}

/// A probability in percent. Only exact values are shown as 0 % or 100 %.
#[must_use]
pub fn percent(chance: f64) -> String {
    match chance * 100.0 {
        percent if percent > 0.0 && percent < 0.5 => "< 1 %".to_owned(),
        percent if (99.5..100.0).contains(&percent) => "> 99 %".to_owned(),
        percent => format!("{percent:.0} %"),
    }
}
