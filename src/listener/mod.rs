//! The listener: an accept loop of its own, built on Pingora's public parts.
//!
//! Pingora's accept loop has no timeout for request headers and a fixed TLS configuration, continues when it
//! cannot bind, and closes idle connections even if a request may be on its way.
//!
//! - [`address`], [`sockets`]: listening sockets, which are bound before the server starts; [`handover`]: passes
//!   them to a new process.
//! - [`listener_service`]: the service and its workers; [`worker_context`]: the state of a worker;
//!   [`client_rules`], [`client_timeouts`], [`connection_limits`]: the settings that apply to clients.
//! - [`accept`]: a connection before HTTP.
//! - [`http1`], [`http2`]: the requests of a connection; [`engine`]: who serves them; [`stream_handle`], [`stream`], [`body`],
//!   [`inactivity_timer`]: its bytes and timeouts.
//! - [`connection_counts`], [`descriptors`]: the number of connections; [`flood`]: floods of HTTP/2 frames.
//! - [`connection`]: the state that a connection shares with its requests; [`drain`]: the open connections, and
//!   their graceful shutdown.

mod accept;
pub mod address;
mod body;
pub mod client_rules;
pub mod client_timeouts;
pub mod connection;
pub mod connection_counts;
pub mod connection_limits;
pub mod descriptors;
pub mod drain;
pub mod engine;
pub mod flood;
pub mod handover;
mod http1;
mod http2;
pub mod inactivity_timer;
pub mod minimum_rate;
pub mod listener_service;
pub mod sockets;
pub mod stream;
pub mod stream_handle;
mod worker_context;

pub use accept::AcceptorSettings;
pub use client_rules::{ActiveClientRules, ClientRules};
pub use drain::Drain;
pub use engine::{Engine, Http1Request, Http2Stream};
pub use listener_service::ListenerService;
pub use sockets::Socket;
