//! The cryptography provider of the process.

/// Installs aws-lc-rs as the cryptography provider of the process. Further calls have no effect.
///
/// Without this call Pingora installs *ring* at first use, which lacks post-quantum key exchange.
pub fn install_provider() {
    // The call fails only if a provider is already installed. In tests that is this one.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
}
