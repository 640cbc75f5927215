//! Active health checks.
//!
//! Pingora's background service runs the checks of every pool in parallel at a short, fixed interval; the
//! [`Schedule`] of each backend decides each time whether a check is due. So unhealthy backends are checked
//! more often than healthy ones, jitter spreads a thousand checks over time, and the first checks run
//! immediately. Pingora's own thresholds are set to one: `rise` and `fall` are counted in the schedule, which
//! also has the state "not checked yet" that Pingora lacks.

pub mod config;
pub mod connectors;
mod failure;
mod grpc;
pub mod probe;
pub mod schedule;
pub mod state;

pub use config::{CheckRequest, Config, Spec, Type};
pub use schedule::Schedule;
pub use state::Health;
