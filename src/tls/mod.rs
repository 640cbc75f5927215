//! TLS on both sides: handshakes of listeners, and verification of backends.
//!
//! Only this folder uses the TLS library directly. The defaults of the library apply: TLS 1.2 and 1.3, ECDHE
//! with AES-GCM or ChaCha20-Poly1305 only, X25519MLKEM768 preferred.
//!
//! - [`config`]: the `tls` block of a listener.
//! - [`certificates`], [`store`]: certificates from files, and their selection by server name.
//! - [`client_auth`], [`identity`]: verification of clients, and their verified identity.
//! - [`tickets`]: session ticket keys shared by several machines.
//! - [`terminator`]: TLS of one listener.
//! - [`acceptor`]: builds the settings of the library.
//! - [`watch`]: reloads changed files, and warns about expiring certificates.
//! - [`development`]: a self-signed certificate for development.
//! - [`upstream`]: TLS to backends.

mod acceptor;
pub mod certificates;
pub mod client_auth;
pub mod config;
pub mod development;
pub mod identity;
mod store;
pub mod terminator;
pub mod tickets;
pub mod upstream;
pub mod watch;

pub use certificates::Certificate;
pub use config::{Config, Settings};
pub use identity::ClientIdentity;
pub use terminator::{Established, Terminator};
pub use watch::Watcher;

/// Installs aws-lc-rs as the cryptography provider of the process.
///
/// Pingora would install *ring* at first use, which lacks post-quantum key exchange. A second call is harmless.
pub fn install_provider() {
    // An error means that a provider is installed already; in tests it is this one.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
}
