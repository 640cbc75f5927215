//! A pool: the backends that serve the same requests, one of which is picked for each attempt.
//!
//! A pool uses Pingora's `LoadBalancer` with one of the policies in [`selection`]. Pingora's background service
//! runs discovery and health checks. Pingora has no place for requests in flight, latency and ejection, so this
//! state is in [`Endpoint`], which is attached to each Pingora backend.
//!
//! - [`config`]: the `pools` block. [`endpoint`]: one backend. [`lease`]: one attempt at a backend.
//! - `trial`: one attempt at an ejected backend that passes its health checks again.
//! - [`learned`]: what is learned about a backend: its latency, and how long it keeps an idle connection.
//! - [`peer`]: how l7lb connects to a backend.
//! - [`health`]: active health checks. [`passive_health`]: outlier detection on real traffic.
//! - [`admission`]: limits on requests in flight, queues and circuit breakers.
//! - [`selection`]: balancing policies, affinity and the selection preview.
//! - [`operator`]: operator overrides, and the list of backends for operators.
//! - [`live`]: the live pool, which ties all of these together.
//! - [`lifecycle`]: how a pool starts, takes over state from the pool that it replaces, and stops.

pub mod config;
pub mod endpoint;
pub mod learned;
pub mod lease;
mod trial;
pub mod live;
pub mod peer;

pub mod health;
pub mod passive_health;
pub mod admission;
pub mod selection;
pub mod operator;
pub mod lifecycle;

#[cfg(test)]
mod tests;

pub use config::{BackendConfig, Config, Spec, WEIGHT_MAX};
pub use endpoint::{BackendSettings, Endpoint, PoolShared};
pub use health::connectors::Connectors;
pub use health::state::Health;
pub use lease::Lease;
pub use lifecycle::service::{PoolService, RunningPools};
pub use live::Pool;
pub use operator::backends::{ListedBackend, OverrideRejected};
pub use selection::affinity::AffinityPick;
pub use selection::key::Key;
