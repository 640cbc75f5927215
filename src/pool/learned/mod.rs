//! What l7lb learns about a backend from its responses and connections.

pub mod idle_limit;
pub(in crate::pool) mod latency;
