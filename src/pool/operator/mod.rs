//! Operator overrides of backends, and what operators see of them.
//!
//! - [`overrides`]: the state and weight of one backend.
//! - [`backends`]: lists and changes the backends of a pool.

pub mod overrides;
pub mod backends;

#[cfg(test)]
mod backends_tests;
