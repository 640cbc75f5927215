//! The interface between a balancer and its policies: members, a request for one of them, and the policy trait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::pool::endpoint::Endpoint;
use crate::pool::selection::key::{Key, mix};

/// A backend and its share.
#[derive(Clone)]
pub struct Member {
    /// The backend.
    pub endpoint: Arc<Endpoint>,
    /// Its share relative to the others'; at least 1.
    pub weight: u32,
}

/// Chooses one of the members that it was built for.
pub trait Policy: Send + Sync + Sized + 'static {
    /// What it is told beside the members.
    type Config: Default + Send + Sync;

    /// Prepares for `members`; called again whenever discovery finds others.
    fn build(config: &Self::Config, members: &[Member]) -> Self;

    /// The index of a member that `ask` accepts; `None` where there is none. `members` are those that
    /// it was built for.
    fn choose(&self, members: &[Member], ask: &mut Ask<'_>) -> Option<usize>;

    /// What it compares the member by, lower is better; none where it compares nothing.
    fn score(&self, _member: &Member, _now: Instant) -> Option<f64> {
        None
    }
}

/// A request that asks for a backend.
pub struct Ask<'a> {
    /// What the request is known by, for policies that care.
    pub key: Key,
    /// When it asks.
    pub now: Instant,
    /// The backends that it was sent to before.
    pub tried: &'a [Arc<Endpoint>],
    /// Where chance comes from.
    pub random: Rng,
    /// How long a backend that has come back takes to its full share; zero for at once.
    pub slow_start: Duration,
    /// Whether what bounds the pool's traffic lets a backend have it.
    pub admits: &'a dyn Fn(&Endpoint) -> bool,
}

impl Ask<'_> {
    /// Whether `member` may take the request: it is available, was not tried, and is not still too fresh.
    pub fn accepts(&mut self, member: &Member) -> bool {
        let endpoint = &member.endpoint;
        endpoint.is_available()
            && (self.admits)(endpoint)
            && !self.tried.iter().any(|tried| tried.address() == endpoint.address())
            && (self.slow_start.is_zero() || self.is_warm(endpoint))
    }

    /// Slow start: a fresh backend takes part in a growing share of all choices. Which requests those are
    /// is chance; where they have keys it is the key, so that each key moves once.
    fn is_warm(&mut self, endpoint: &Endpoint) -> bool {
        let warmth = endpoint.warmth(self.now, self.slow_start);
        if warmth >= 1.0 {
            return true;
        }
        let lot = if self.key == Key::NONE {
            self.random.f64()
        } else {
            // 53 bits are what an f64 holds exactly.
            (mix(self.key.0 ^ Key::of(endpoint.text().as_bytes()).0) >> 11) as f64 / (1_u64 << 53) as f64
        };
        lot < warmth
    }
}

/// Any member that is accepted, by weight; looks at all of them, so it is for when little is left.
pub(in crate::pool) fn any(members: &[Member], ask: &mut Ask<'_>) -> Option<usize> {
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

/// A member of a pool, as its policy sees it before a request.
pub struct Prospect {
    /// The backend.
    pub endpoint: Arc<Endpoint>,
    /// Its share relative to the others'.
    pub weight: u32,
    /// What the policy compares, lower is better; none where it compares nothing.
    pub score: Option<f64>,
    /// How often it was chosen.
    pub chosen: usize,
}
