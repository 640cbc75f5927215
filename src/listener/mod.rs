//! The listener: its own accept loop on Pingora's public parts. Pingora's accept loop has no timeout for
//! request headers, a fixed TLS configuration, continues when it cannot bind, and closes idle connections while
//! a request may be on its way.
//!
//! - [`address`], [`sockets`]: listening sockets, bound before anything runs; [`handover`]: passes them to a
//!   new process.
//! - [`front`]: the service and its workers; [`service`]: what a worker serves with.
//! - [`accept`]: a connection before HTTP.
//! - [`http1`], [`http2`]: the requests of a connection; [`lent`], [`stream`], [`body`], [`stall`]: its bytes
//!   and timeouts.
//! - [`caps`], [`descriptors`]: the number of connections; [`flood`]: HTTP/2 frames that cost work without
//!   being requests.
//! - [`connection`]: the state shared with requests. [`drain`]: open connections, and how they end.

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
