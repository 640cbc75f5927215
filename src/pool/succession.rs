//! What a pool takes over from the one in whose place it comes when the configuration changes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use super::bounds::Bounds;
use super::endpoint::{Endpoint, Health, Standing};
use super::{Pool, Spec};
use crate::discovery::{Discovery, Member};
use crate::units::PoolName;

impl Spec {
    /// Whether both describe the very same pool: the same was written, and the files that it names hold
    /// the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.written == other.written && self.template.tls == other.template.tls
    }

    /// Whether what is known about a backend by `before` still means the same. Where checks are switched
    /// off it does not: nobody would bring back what they took out.
    fn keeps_endpoints_of(&self, before: &Self) -> bool {
        self.health_check.is_some() || before.health_check.is_none()
    }
}

/// The discovery of a pool's backends, each with its state; those of `before` keep their health.
#[expect(clippy::disallowed_methods, reason = "a backend's own clock starts when it is found")]
pub(super) fn discovery(
    name: &PoolName,
    spec: &Spec,
    before: Option<&Pool>,
    in_flight: &Arc<AtomicU32>,
    bounds: &Bounds,
) -> Arc<Discovery<Arc<Endpoint>>> {
    let start = if spec.health_check.is_some() { Health::Unknown } else { Health::Up };
    let kept = before.filter(|before| spec.keeps_endpoints_of(&before.spec));
    let known: HashMap<SocketAddr, Arc<Endpoint>> =
        kept.iter().flat_map(|before| before.candidates()).map(|endpoint| (endpoint.address(), endpoint)).collect();
    let pool_in_flight = Arc::clone(in_flight);
    let judged = bounds.attach();
    let attach = move |address, member: &Member| {
        let standing =
            Standing { backup: member.backup, drain: member.drain, pool_in_flight: Arc::clone(&pool_in_flight) };
        let endpoint = Endpoint::new(address, start, standing, Instant::now());
        let endpoint = match known.get(&address) {
            Some(before) => endpoint.succeeding(before),
            None => endpoint,
        };
        Arc::new(judged(address, endpoint))
    };
    let discovery = Discovery::new(name.clone(), spec.members.clone(), attach);
    Arc::new(match before {
        Some(before) => discovery.succeeding(&before.discovery),
        None => discovery,
    })
}
