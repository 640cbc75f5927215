//! Operator overrides of backends, and what operators see of them.
//!
//! - [`administration`]: the state and weight of one backend: from the configuration, or from an override.
//! - [`operation`]: the backends of a pool as commands show and change them.

pub mod administration;
pub mod operation;

#[cfg(test)]
mod operation_tests;
