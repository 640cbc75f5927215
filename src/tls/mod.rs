//! TLS on both sides: how listeners answer handshakes, and how backends are verified.
//!
//! Only this folder knows the TLS library. The rules are the library's own good ones: TLS 1.2 and
//! 1.3, ECDHE with AES-GCM or ChaCha20-Poly1305 only, X25519MLKEM768 preferred.
//!
//! - [`config`]: what is written about a listener, and the proof that its files fit together.
//! - [`certificates`], [`store`]: from files to a certificate, and the one that a client is shown.
//! - [`client_auth`], [`identity`]: whom clients must be vouched for by, and who they proved to be.
//! - [`tickets`]: keys of session tickets that several machines share.
//! - [`terminator`]: what a listener holds: handshakes, and what is known after one.
//! - [`acceptor`]: the library's settings, made from all of these.
//! - [`watch`]: files are read again when they change, and certificates are seen to expire.
//! - [`development`]: a self-signed certificate for a first try.
//! - [`upstream`]: verifying backends.

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

/// Makes aws-lc-rs the process's provider of cryptography, before anybody else chooses another.
///
/// Pingora would install *ring* at first use, which has no post-quantum key exchange. Calling this
/// twice is harmless.
pub fn install_provider() {
    // An error means that a provider is installed already: this very one, in tests.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
}
