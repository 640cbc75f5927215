//! Active health checks.
//!
//! Pingora's background service runs the checks of a pool of configured backends in parallel at a short, fixed interval; the
//! [`schedule`] of each backend decides each time whether a check is due. So unhealthy backends are checked more often than
//! healthy ones, jitter spreads checks over time, and the first checks run immediately. Pingora's own thresholds are set to
//! one: `rise` and `fall` are counted in the schedule, which also has the state "not checked yet" that Pingora lacks.
//!
//! In a pool whose backends are discovered, or that has very many, [`runner`] starts the checks that are due by the same
//! schedules, a limited number at the same time: Pingora's loop starts a task for each backend at each tick.

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
