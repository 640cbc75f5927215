//! Filters: each with real requests over HTTP/1.1 and HTTP/2.

mod body_limit;
mod buffer;
mod compress;
mod error_pages;
mod frame;
mod headers;
mod maintenance;
mod redirect;
