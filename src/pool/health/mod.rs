//! Active health checks: what is asked, how often, and what the answers mean.
//!
//! Pingora's background service runs every pool's checks in parallel at a short, steady beat; a
//! backend's own [`Schedule`] decides at each beat whether a check is due. That is how a backend
//! that fails is asked more often than one that is well, how jitter keeps a thousand checks from
//! falling on the same moment, and how the first checks go out at once. Pingora's own counters are
//! given thresholds of one: counting rise and fall happens in the schedule, which also knows the
//! state that Pingora has no word for, "not checked yet".

pub mod config;
pub mod connectors;
mod failure;
mod grpc;
pub mod probe;
pub mod schedule;
pub mod state;

pub use config::{Config, Question, Spec, Type};
pub use schedule::Schedule;
pub use state::Health;
