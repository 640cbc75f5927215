//! The front door: accepting connections, TLS handshakes, and closing the door without hurting
//! anybody.
//!
//! This is an accept loop of our own on Pingora's public pieces, because Pingora's has one fixed
//! TLS configuration, goes on living when it cannot bind, and ends idle connections while a request
//! may be on its way.
//!
//! - [`sockets`]: listening sockets, bound before anything runs.
//! - [`front`]: the service that accepts and serves.
//! - [`buffered`]: a connection with a small write buffer.
//! - [`caps`]: how many connections may be open, in all and for each client.
//! - [`descriptors`]: the limit of open files, which bounds them.
//! - [`drain`]: connections that are open, and how they end.
//! - [`flood`]: HTTP/2 frames that cost us work without being requests.
//! - [`handover`]: giving the sockets to a new process.

mod buffered;
pub mod caps;
pub mod descriptors;
pub mod drain;
pub mod flood;
pub mod front;
pub mod handover;
pub mod sockets;

pub use drain::Drain;
pub use front::Front;
pub use sockets::Socket;
