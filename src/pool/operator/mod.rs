//! Operator overrides of backends, and the list of backends for operators.
//!
//! - [`overrides`]: the state and weight of one backend.
//! - [`saved`]: overrides that outlast the process.
//! - [`backends`]: lists the backends of a pool, and applies overrides.

pub mod overrides;
pub mod saved;
pub mod backends;

#[cfg(test)]
mod backends_tests;
