//! l7lb: an HTTP load balancer on Pingora.
//!
//! # Modules
//! In the order in which they may import each other: an earlier one never imports a later one
//! (`tests/architecture` enforces it). `docs/architecture.md` describes each of them.
//!
//! - [`base`]: units, faults, events, state of the process. [`http`]: HTTP's rules, without I/O.
//! - [`tls`]: certificates and handshakes. [`observe`]: logs and recent requests. [`listener`]: downstream
//!   connections.
//! - [`routing`]: which route matches a request. [`limit`], [`retry`]: rate limits, retry policy.
//!   [`cache`]: stored responses. [`filter`]: filters of requests and responses. [`discovery`], [`pool`]: backends, their health, and the choice among them.
//! - [`config`]: the configuration file. [`decision`]: the snapshot built from it, and what it decides about a
//!   request. [`proxy`]: the life of a request.
//! - [`control`]: reload, plan and the control API. [`server`]: the process. [`cli`]: the command line.
//!   [`sample_backend`]: the backend that the demo and the tests use.

#![allow(rustdoc::private_intra_doc_links, reason = "the documentation is read with private items")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests take an instant to start from"))]

pub mod base;
pub mod http;
pub mod tls;
pub mod observe;
pub mod listener;

pub mod routing;
pub mod limit;
pub mod retry;
pub mod cache;
pub mod filter;
pub mod discovery;
pub mod pool;

pub mod config;
pub mod decision;
pub mod proxy;

pub mod control;
pub mod server;
pub mod cli;

#[path = "../backends/server.rs"]
pub mod sample_backend;
