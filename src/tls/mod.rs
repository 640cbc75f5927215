//! TLS on both sides: termination of client connections, and verification of backends.
//!
//! Only this module uses the TLS library directly. The defaults of the library apply: TLS 1.2 and 1.3, ECDHE
//! with AES-GCM or ChaCha20-Poly1305 only, X25519MLKEM768 preferred.
//!
//! - [`config`]: the `tls` block of a listener.
//! - [`certificates`]: certificates from files; [`store`]: their selection by server name (SNI).
//! - [`client_auth`]: verification of client certificates; [`identity`]: the verified identity of a client.
//! - [`tickets`]: session ticket keys shared by several machines.
//! - [`terminator`]: TLS of one listener.
//! - [`acceptor`]: builds the settings of the TLS library.
//! - [`watch`]: reloads changed files, and warns about expiring certificates.
//! - [`development`]: a self-signed certificate for development.
//! - [`upstream`]: TLS to backends; [`system_authorities`]: what verifies them by default.
//! - [`client`]: TLS of commands. [`service`]: TLS to services that l7lb asks. `client_files`: the certificate
//!   that l7lb presents.
//! - [`connection`]: connections to the HTTP API of such a service; [`endpoint`]: its URL.
//! - [`provider`]: the cryptography provider of the process.

mod acceptor;
pub mod certificates;
pub mod client;
pub mod service;
pub mod client_auth;
mod client_files;
pub mod config;
pub mod connection;
pub mod development;
pub mod endpoint;
pub mod identity;
mod provider;
pub mod server_stream;
mod store;
pub mod system_authorities;
pub mod terminator;
pub mod tickets;
pub mod upstream;
pub mod watch;

pub use certificates::Certificate;
pub use config::{Config, Settings};
pub use identity::ClientIdentity;
pub use provider::install_provider;
pub use terminator::{HandshakeResult, Terminator};
pub use watch::Watcher;
