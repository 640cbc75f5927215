//! What a listener needs to answer handshakes: certificates, ALPN and session tickets.

use std::sync::Arc;

use pingora_core::listeners::tls::Acceptor;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};

use super::{Certificate, Store};

/// Builds the acceptor of one listener: TLS 1.2 and 1.3, `h2` before `http/1.1`.
///
/// Sessions are resumed by stateless tickets (RFC 5077, RFC 8446 §4.6.1): a ticket lives for 12
/// hours, and the key that protects it is replaced every 6 hours, so that a stolen key opens
/// little. Early data stays off, since it can be replayed.
///
/// # Errors
/// In words, when the cryptography provider refuses the settings.
pub fn build(certificates: &[Certificate]) -> Result<Acceptor, String> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Store::new(certificates)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new().map_err(|e| e.to_string())?;
    Ok(Acceptor::from_server_config(Arc::new(config)))
}
