//! The certificate that l7lb presents as a client, and the settings of connections that it makes with rustls.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::base::fault::{Faults, Place};

/// A client certificate with its chain, and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The files of `client_certificate` and `client_key` of a block, if it has them. `None` after a fault: one of them is
/// missing.
pub(super) fn pair<'a>(
    certificate: Option<&'a PathBuf>,
    key: Option<&'a PathBuf>,
    place: &Place,
    faults: &mut Faults,
) -> Option<Option<(&'a Path, &'a Path)>> {
    match (certificate, key) {
        (None, None) => Some(None),
        (Some(certificate), Some(key)) => Some(Some((certificate, key))),
        (Some(_), None) => {
            faults.add(place.key("client_certificate"), "the key is missing", "add `client_key: FILE`");
            None
        }
        (None, Some(_)) => {
            faults.add(place.key("client_key"), "the certificate is missing", "add `client_certificate: FILE`");
            None
        }
    }
}

/// The settings of connections to servers whose certificates are signed by `roots`.
///
/// # Errors
/// If the certificate and the key of the client do not belong together.
pub(super) fn config(roots: RootCertStore, identity: Option<Identity>) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key),
    }
}
