//! Operator overrides of backends, and the list of backends for operators.
//!
//! - [`overrides`]: the state and weight of one backend.
//! - [`saved`]: overrides that outlast the process.
//! - [`backends`]: lists the backends of a pool, and applies overrides.
//! - [`event_limit`]: limits the events about single backends.

pub mod overrides;
pub mod saved;
pub mod backends;
pub mod event_limit;

#[cfg(test)]
mod backends_tests;
