//! Selection: which backend of a pool gets a request.
//!
//! - [`choice`]: the interface between the balancer and a policy. [`key`]: the key of a request.
//! - [`policy`]: the balancing policies.
//! - [`balancer`]: Pingora's load balancer with any policy.
//! - [`group`]: primary and backup backends.
//! - [`affinity`]: picks the backend that session affinity selects.
//! - [`preview`]: the selection preview, which shows the backend that would be picked.

pub mod key;
pub mod choice;
pub mod policy;
pub mod balancer;
pub mod group;
pub mod affinity;
pub mod trial;
pub mod preview;

#[cfg(test)]
mod preview_tests;
