//! Filters as clients and backends see them.

mod cors;
mod h2_client;
mod jwt;
mod rate_limit;
