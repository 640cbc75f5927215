//! Active health checks.
//!
//! [`runner`] examines the schedules of all backends at a short interval, and starts the checks that are due, a limited
//! number at the same time. So unhealthy backends are checked more often than healthy ones, jitter spreads the checks of
//! many backends over the interval, and the first checks run immediately. Pingora's own loop is not used: it starts a
//! task for each backend at each examination, whether a check is due or not, and waits for all of them.

pub mod config;
pub mod connectors;
mod failure;
mod grpc;
pub mod probe;
pub(in crate::pool) mod runner;
pub mod schedule;
pub mod state;

pub use config::{CheckRequest, Config, Spec, Type};
pub use schedule::Schedule;
pub use state::Health;
