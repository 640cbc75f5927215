//! The interface between a balancer and its policies: members, a request for one of them, and the policy trait.

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

/// Chooses one of the members that it was built for.
pub trait Policy: Send + Sync + Sized + 'static {
    /// Its settings.
    type Config: Default + Send + Sync;

    /// Prepares for `members`; called again whenever discovery finds others.
    fn build(config: &Self::Config, members: &[Member]) -> Self;

    /// The index of a member that `ask` accepts; `None` if there is none. `members` are those that it was built
    /// for.
    fn choose(&self, members: &[Member], ask: &mut SelectionRequest<'_>) -> Option<usize>;

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
    /// The backends of earlier attempts.
    pub attempted: &'a [Arc<Endpoint>],
    /// The random number generator.
    pub random: Rng,
    /// How long a backend takes to reach its full share after it comes up; zero for immediately.
    pub slow_start: Duration,
    /// Whether passive health and admission allow a backend.
    pub admits: &'a dyn Fn(&Endpoint) -> bool,
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

    /// Slow start: a backend that has come up takes part in a growing share of all choices. The share is
    /// random, or depends on the key where requests have keys, so that each key moves only once.
    fn is_warm(&mut self, endpoint: &Endpoint) -> bool {
        let slow_start_factor = endpoint.slow_start_factor(self.now, self.slow_start);
        if slow_start_factor >= 1.0 {
            return true;
        }
        let lot = if self.key == Key::NONE {
            self.random.f64()
        } else {
            // An f64 holds 53 bits exactly.
            (mix(self.key.0 ^ Key::of(endpoint.text().as_bytes()).0) >> 11) as f64 / (1_u64 << 53) as f64
        };
        lot < slow_start_factor
    }
}

/// Any accepted member, by weight. Looks at all members, so it is for when few are left.
pub(in crate::pool) fn any(members: &[Member], ask: &mut SelectionRequest<'_>) -> Option<usize> {
    let mut chosen = None;
    let mut total = 0;
    for (index, member) in members.iter().enumerate() {
        if ask.accepts(member) {
            total += u64::from(member.weight);
            if ask.random.u64(..total.max(1)) < u64::from(member.weight) {
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
    /// How often it was chosen.
    pub chosen: usize,
}
