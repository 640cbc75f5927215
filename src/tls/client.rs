//! TLS of commands that call the admin API of a process: verified against the system's authorities or those of a file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::{self, FileError};
use super::client_files;

/// TLS settings of a client.
#[derive(Clone)]
pub struct ClientTls(TlsConnector);

impl ClientTls {
    /// Settings that trust the authorities in the file `ca`, or those of the system; `certificate` is a file with a client
    /// certificate, and one with its key.
    ///
    /// # Errors
    /// A sentence with the file and the problem.
    pub fn new(ca: Option<&Path>, certificate: Option<(&Path, &Path)>) -> Result<Self, String> {
        let problem = |e: FileError| e.problem;
        let roots = match ca {
            Some(file) => roots(certificates::read_chain(file).map_err(problem)?),
            None => roots(rustls_native_certs::load_native_certs().map_err(|e| format!("no system authorities: {e}"))?),
        };
        if roots.is_empty() {
            return Err("there is no certificate authority; name one with `--ca FILE`".to_owned());
        }
        let mut config = match certificate {
            None => client_files::config(roots, None).map_err(|e| e.to_string())?,
            Some((chain, key)) => {
                let read = certificates::read_chain(chain).map_err(problem)?;
                let secret = certificates::read_key(key).map_err(problem)?;
                let pair = |e| format!("{} and {}: {e}", chain.display(), key.display());
                client_files::config(roots, Some((read, secret))).map_err(pair)?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Does the handshake with the server `name`, a DNS name or an IP address.
    ///
    /// # Errors
    /// If the name is invalid or the handshake fails; [`explain`] gives the reason.
    pub async fn connect<S>(&self, name: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_owned()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        self.0.connect(name, stream).await
    }
}

/// The certificates that can be used; a store of the system may have others.
fn roots(certificates: Vec<rustls::pki_types::CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    roots
}

/// The reason of a TLS error in `error`, with a remedy; `None` for other errors.
#[must_use]
pub fn explain(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let tls = find(error)?;
    Some(match tls {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is not signed by a known authority; name its authority with `--ca FILE`"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the server's certificate is for other names; use one of them in `--server`".to_owned(),
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the server's certificate has expired".to_owned()
        }
        rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired) => {
            "the server requires a client certificate; give `--client-cert FILE` and `--client-key FILE`".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("the server rejects the TLS connection: {alert:?}"),
        rustls::Error::InvalidMessage(_) => "the server does not use TLS; write http:// in `--server`".to_owned(),
        other => format!("TLS: {other}"),
    })
}

/// The TLS error among the causes of an error.
fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
