//! l7lb: an HTTP load balancer on Pingora.
//!
//! # The map
//! Modules stand in the order in which they may import each other: earlier ones never name later
//! ones (`tests/architecture.rs` holds them to it).
//!
//! - words: [`units`], [`fault`], [`net`], [`rejection`], [`event`], [`request_limits`]
//! - mechanisms, pure, with the clock passed in: [`route`], [`limit`]
//! - parts: [`tls`], [`discovery`], [`pool`], [`observe`]
//! - stages: [`config`] (written, then checked), [`snapshot`] (live)
//! - traffic: [`proxy`] (the life of a request), [`listener`] (the front door)
//! - process: [`server`], [`cli`]; [`sample_backend`] is what the demo and the tests put behind it
//!
//! # The life of a request
//! [`listener::front`] accepts → [`proxy::Proxy`] takes the snapshot, finds out who the client is,
//! asks the limits, finds the route → the route's [`pool::Pool`] picks a backend → headers in, body,
//! answer, headers out → one access line. `proxy/mod.rs` reads like this list.

pub mod event;
pub mod fault;
pub mod net;
pub mod rejection;
pub mod request_limits;
pub mod units;

pub mod limit;
pub mod route;

pub mod discovery;
pub mod observe;
pub mod pool;
pub mod tls;

pub mod config;
pub mod snapshot;

pub mod listener;
pub mod proxy;

pub mod cli;
pub mod server;

#[path = "../backends/server.rs"]
pub mod sample_backend;
