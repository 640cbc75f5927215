//! Policies: which of a pool's backends takes a request.
//!
//! A [`Policy`] is prepared once for a set of members, and then chooses without a lock. Each lives in
//! a file of its own that says what it optimises, what it costs and when not to use it:
//! [`round_robin`], [`random`], [`least_requests`], [`peak_ewma`], [`consistent_hash`].
//!
//! How it gets there: discovery, health checks and the loop that runs them are Pingora's
//! `LoadBalancer<S>`, and in the classic example `S` is [`RoundRobin`]. [`crate::pool::selection::balancer`] makes a
//! selection of Pingora's out of any policy. Adding one: a file, a variant of [`Type`], an arm of `build`.

pub mod config;
pub mod consistent_hash;
pub mod least_requests;
pub mod peak_ewma;
pub mod random;
pub mod round_robin;

use std::sync::Arc;

use pingora_load_balancing::Backends;

pub use config::{Config, Spec, Type};

use crate::pool::selection::balancer::{Balanced, Balancer, Rhythm, Selection};

/// The selection of the classic policy: `LoadBalancer<RoundRobin>`.
pub type RoundRobin = Selection<round_robin::Turns>;

/// The load balancer that `spec` describes.
pub(in crate::pool) fn build(spec: &Spec, backends: Backends, rhythm: Rhythm) -> Arc<dyn Balancer> {
    match spec.r#type {
        Type::RoundRobin => Arc::new(Balanced::<round_robin::Turns>::new(backends, rhythm)),
        Type::Random => Arc::new(Balanced::<random::Weighted>::new(backends, rhythm)),
        Type::LeastRequests => Arc::new(Balanced::<least_requests::LeastRequests>::new(backends, rhythm)),
        Type::PeakEwma => Arc::new(Balanced::<peak_ewma::PeakEwma>::new(backends, rhythm)),
        Type::ConsistentHash => Arc::new(Balanced::<consistent_hash::Ring>::new(backends, rhythm)),
    }
}

#[cfg(test)]
mod policy_tests;
