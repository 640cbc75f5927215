//! How pools start, change and end.
//!
//! - [`build`]: builds a pool, and takes over state from the pool that it replaces.
//! - [`keeper`]: the background service that runs the discovery and health checks of every pool.

pub mod replaced_pool;
pub mod build;
pub mod keeper;

#[cfg(test)]
mod build_tests;
