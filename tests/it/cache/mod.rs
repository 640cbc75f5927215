//! The HTTP cache of the real binary.

mod commands;
mod purge;
