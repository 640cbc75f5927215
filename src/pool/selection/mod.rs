//! Selection: which backend of a pool gets a request.
//!
//! - [`choice`]: the interface between the balancer and a policy. [`key`]: the key of a request.
//! - [`policy`]: the balancing policies.
//! - [`balancer`]: Pingora's load balancer with any policy.
//! - [`zones`], `zone_groups`, [`zone_preference`]: the preference for the backends of the local zone.
//! - [`group`]: primary and backup backends.
//! - [`affinity`]: picks the backend that session affinity selects.
//! - [`preview`]: the selection preview, which shows the backend that would be picked.

pub mod key;
pub mod choice;
pub mod policy;
mod prepared_group;
pub(in crate::pool) mod zones;
pub mod zone_preference;
mod zone_groups;
pub mod balancer;
pub mod group;
pub mod affinity;
pub mod trial;
pub mod preview;

#[cfg(test)]
mod preview_tests;
#[cfg(test)]
mod zone_tests;
