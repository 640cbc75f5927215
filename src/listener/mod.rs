//! The front door: an accept loop of our own on Pingora's public pieces, because Pingora's has no
//! deadline for a request's header, one fixed TLS configuration, goes on living when it cannot bind,
//! and ends idle connections while a request may be on its way.
//!
//! - [`sockets`]: listening sockets, bound before anything runs; [`handover`]: giving them to a new
//!   process.
//! - [`front`]: the service, and its workers; [`service`]: what each of them serves with.
//! - [`accept`]: what happens to a connection before HTTP.
//! - [`http1`], [`http2`]: request after request; [`lent`], [`stream`], [`body`], [`stall`]: the bytes
//!   below.
//! - [`caps`], [`descriptors`]: how many connections may be open; [`flood`]: HTTP/2 frames that cost us
//!   work without being requests.
//! - [`drain`]: connections that are open, and how they end.

mod accept;
pub mod address;
mod body;
pub mod caps;
pub mod client_timeouts;
pub mod connection;
pub mod connection_limits;
pub mod descriptors;
pub mod drain;
pub mod flood;
pub mod front;
pub mod handover;
mod http1;
mod http2;
mod lent;
mod service;
pub mod sockets;
mod stall;
mod stream;

pub use accept::Entrance;
pub use drain::Drain;
pub use front::Front;
pub use service::{LiveRules, Rules};
pub use sockets::Socket;
