//! How pools start, change and end.
//!
//! - [`succession`]: builds a pool, and passes the state of the pool before to it.
//! - [`keeper`]: the background service that runs the discovery and health checks of every pool.

pub mod predecessor;
pub mod succession;
pub mod keeper;

#[cfg(test)]
mod succession_tests;
