//! Filters: each with real requests over HTTP/1.1 and HTTP/2.

mod access;
mod agreement;
mod bad_input;
mod basic_auth;
mod body_limit;
mod buffer;
mod compress;
mod cors;
mod error_pages;
mod examples;
mod forward_auth;
mod frame;
mod h2_client;
mod headers;
mod jwt;
mod maintenance;
mod mirror;
mod production;
mod rate_limit;
mod redirect;
mod rewrite;
mod timeout;
