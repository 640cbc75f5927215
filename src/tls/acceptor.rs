//! The TLS library's settings for one listener, built from the contents of its files.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::ProducesTickets;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

use super::config::{Config, FileContents, Protocol, Version};
use super::store::CertificateStore;

/// Builds the acceptor of one listener.
///
/// Sessions are resumed with stateless tickets (RFC 5077, RFC 8446 §4.6.1). Early data is off, because it can
/// be replayed.
///
/// # Errors
/// A message, if the cryptography provider rejects the settings.
pub(super) fn build(
    config: &Config,
    contents: &FileContents,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<TlsAcceptor, String> {
    let versions: &[&SupportedProtocolVersion] = match config.minimum_version {
        Version::Tls12 => &[&TLS13, &TLS12],
        Version::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .map_err(|e| e.to_string())?;
    let builder = match &contents.client_auth {
        None => builder.with_no_client_auth(),
        Some(auth) => builder.with_client_cert_verifier(auth.verifier()),
    };
    let mut server = builder.with_cert_resolver(Arc::new(CertificateStore::new(&contents.certificates)));
    server.alpn_protocols = config.alpn.iter().copied().map(Protocol::name).map(Into::into).collect();
    server.ticketer = tickets;
    Ok(TlsAcceptor::from(Arc::new(server)))
}
