//! Balancing policies: which backend of a pool gets a request.
//!
//! A [`Policy`](crate::pool::selection::choice::Policy) is prepared once for a set of members, and then chooses
//! without a lock. Each policy has a file that states what it optimises, its cost, and when not to use it:
//! [`round_robin`], [`random`], [`least_requests`], [`peak_ewma`], [`consistent_hash`].
//!
//! Pingora's `LoadBalancer<S>` runs discovery and health checks; for round robin `S` is [`RoundRobin`].
//! [`crate::pool::selection::balancer`] turns any policy into such a selection. To add a policy, add a file, a
//! variant of [`Type`] and an arm in `build`.

pub mod config;
pub mod consistent_hash;
pub mod least_requests;
pub mod peak_ewma;
pub mod random;
pub mod round_robin;

use std::sync::Arc;

use pingora_load_balancing::Backends;

pub use config::{Config, Spec, Type};

use crate::pool::selection::balancer::{Balancer, BalancerSettings, PolicyBalancer, Selection};

/// The selection for round robin: `LoadBalancer<RoundRobin>`.
pub type RoundRobin = Selection<round_robin::SmoothRoundRobin>;

/// The load balancer for `spec`.
pub(in crate::pool) fn build(spec: &Spec, backends: Backends, settings: BalancerSettings) -> Arc<dyn Balancer> {
    match spec.r#type {
        Type::RoundRobin => Arc::new(PolicyBalancer::<round_robin::SmoothRoundRobin>::new(backends, settings)),
        Type::Random => Arc::new(PolicyBalancer::<random::Weighted>::new(backends, settings)),
        Type::LeastRequests => Arc::new(PolicyBalancer::<least_requests::LeastRequests>::new(backends, settings)),
        Type::PeakEwma => Arc::new(PolicyBalancer::<peak_ewma::PeakEwma>::new(backends, settings)),
        Type::ConsistentHash => Arc::new(PolicyBalancer::<consistent_hash::Ring>::new(backends, settings)),
    }
}

#[cfg(test)]
mod policy_tests;
