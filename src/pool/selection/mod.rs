//! Which backend of a pool takes a request.
//!
//! - [`policy`]: the balancing policies.
//! - [`balancer`]: Pingora's load balancer under any policy.
//! - [`group`]: primary and backup backends.
//! - [`preference`]: the backend that session affinity prefers.
//! - [`outlook`]: which backend would be picked, without picking one.

pub mod key;
pub mod choice;
pub mod policy;
pub mod balancer;
pub mod group;
pub mod preference;
pub mod outlook;

#[cfg(test)]
mod outlook_tests;
