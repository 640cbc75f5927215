//! How pools start, replace each other during a reload, and stop.
//!
//! - [`build`]: builds a pool, and takes over state from the pool that it replaces.
//! - [`replaced_pool`]: the state of the replaced pool that its replacement takes over.
//! - [`run`]: runs the discovery and health checks of one pool.
//! - [`service`]: the background service that runs every pool.

pub mod replaced_pool;
pub mod build;
mod run;
pub mod service;

#[cfg(test)]
mod build_tests;
