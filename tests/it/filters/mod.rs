//! Filters: each with real requests over HTTP/1.1 and HTTP/2.

mod access;
mod basic_auth;
mod forward_auth;
mod cors;
mod frame;
mod h2_client;
mod headers;
mod jwt;
mod rate_limit;
mod redirect;
mod rewrite;
