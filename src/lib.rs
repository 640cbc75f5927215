//! l7lb: an HTTP load balancer on Pingora.
//!
//! # The map
//! Modules stand in the order in which they may import each other: earlier ones never name later
//! ones (`tests/architecture.rs` holds them to it).
//!
//! - words: [`units`], [`fault`], [`net`], [`rejection`], [`connection`], [`request_id`], [`target`],
//!   [`event`], [`request_limits`], [`client_timeouts`], [`connection_limits`], [`file_stamps`], [`systemd`]
//! - mechanisms, pure, with the clock passed in: [`http1`], [`route`], [`limit`], [`retry`], [`split`],
//!   [`sticky`], [`proxy_protocol`], [`breaker`], [`recent_requests`]
//! - parts: [`tls`], [`discovery`], [`pool`], [`observe`]
//! - stages: [`config`] (written, then checked), [`snapshot`] (live), [`decision`] (what becomes of a request),
//!   [`plan`] (what a change would do)
//! - traffic: [`proxy`] (the life of a request), [`listener`] (the front door)
//! - process: [`reload`] (changes while it runs), [`admin`] (the control socket), [`server`], [`cli`]; [`sample_backend`] is what the demo and the tests put behind it
//!
//! # The life of a request
//! [`listener::front`] accepts → [`proxy::Proxy`] takes the snapshot, finds out who the client is,
//! asks the limits, finds the route → the route's [`pool::Pool`] picks a backend → headers in, body,
//! answer, headers out → one access line. `proxy/mod.rs` reads like this list.

#![allow(rustdoc::private_intra_doc_links, reason = "the documentation is read with private items")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests take an instant to start from"))]

pub mod units;
pub mod fault;
pub mod net;
pub mod rejection;
pub mod grpc_status;
pub mod connection;
pub mod request_id;
pub mod target;
pub mod event;
pub mod request_limits;
pub mod client_timeouts;
pub mod connection_limits;
pub mod file_stamps;
pub mod lifecycle;
pub mod systemd;

pub mod http1;
pub mod route;
pub mod limit;
pub mod retry;
pub mod split;
pub mod sticky;
pub mod proxy_protocol;
pub mod breaker;
pub mod recent_requests;

pub mod tls;
pub mod discovery;
pub mod pool;
pub mod observe;

pub mod config;
pub mod snapshot;
pub mod decision;
pub mod plan;

pub mod proxy;
pub mod listener;

pub mod reload;
pub mod admin;
pub mod server;
pub mod cli;

#[path = "../backends/server.rs"]
pub mod sample_backend;
