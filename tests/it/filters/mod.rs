//! Filters: each with real requests over HTTP/1.1 and HTTP/2.

mod access;
mod basic_auth;
mod forward_auth;
mod frame;
mod headers;
mod redirect;
mod rewrite;
