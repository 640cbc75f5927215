//! Selection: which backend of a pool gets a request.
//!
//! - [`policy`]: the balancing policies.
//! - [`balancer`]: Pingora's load balancer with any policy.
//! - [`group`]: primary and backup backends.
//! - [`affinity`]: the backend of session affinity.
//! - [`preview`]: the selection preview: which backend would be picked, without picking one.

pub mod key;
pub mod choice;
pub mod policy;
pub mod balancer;
pub mod group;
pub mod affinity;
pub mod preview;

#[cfg(test)]
mod preview_tests;
