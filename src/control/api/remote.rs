//! The connection of a client to the admin API of a process at a TCP address.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use http::HeaderValue;
use http::uri::{Authority, Scheme, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::config::admin::token;
use crate::tls::client::{self, ClientTls};

/// The files of a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientFiles<'a> {
    /// The token.
    pub token: Option<&'a Path>,
    /// The authorities of the server; without it those of the system.
    pub ca: Option<&'a Path>,
    /// The client certificate, and its key.
    pub certificate: Option<(&'a Path, &'a Path)>,
}

/// A server, and how to authenticate to it.
#[derive(Clone)]
pub struct Remote {
    url: String,
    authority: Authority,
    port: u16,
    tls: Option<ClientTls>,
    token: Option<HeaderValue>,
}

/// Shows the server only, not the token.
impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.url).finish()
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// A connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Remote {
    /// The server at `url`, such as `https://lb.example.com:9443`. Reads the files.
    ///
    /// # Errors
    /// A sentence about the URL or a file.
    pub fn new(url: &str, files: ClientFiles<'_>) -> Result<Self, String> {
        let invalid = || format!("`{url}` is not a server; write for example https://lb.example.com:9443");
        let parts = url.parse::<Uri>().map_err(|_| invalid())?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else { return Err(invalid()) };
        let has_path = parts.path_and_query.is_some_and(|path| path.as_str() != "/" && !path.as_str().is_empty());
        let is_tls = scheme == Scheme::HTTPS;
        if has_path || authority.as_str().contains('@') || !(is_tls || scheme == Scheme::HTTP) {
            return Err(invalid());
        }
        let remote = Self {
            url: url.trim_end_matches('/').to_owned(),
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            tls: if is_tls { Some(ClientTls::new(files.ca, files.certificate)?) } else { None },
            token: files.token.map(authorization).transpose()?,
            authority,
        };
        if !is_tls && !remote.is_loopback() {
            return Err(format!("{url} is not on this machine, so the call needs TLS; write https://"));
        }
        if !is_tls && (files.ca.is_some() || files.certificate.is_some()) {
            return Err(format!("certificates need TLS, and {url} is without; write https://"));
        }
        Ok(remote)
    }

    /// The host, as an address without brackets or as a name.
    fn host(&self) -> &str {
        let host = self.authority.host();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    fn is_loopback(&self) -> bool {
        self.host() == "localhost" || self.host().parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// The value of `Host`.
    pub(super) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The value of `Authorization`.
    pub(super) fn token(&self) -> Option<HeaderValue> {
        self.token.clone()
    }

    /// Connects.
    ///
    /// # Errors
    /// If no address accepts the connection, or the TLS handshake fails.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let mut addresses: Vec<_> = tokio::net::lookup_host((self.host(), self.port)).await?.collect();
        if self.tls.is_none() {
            addresses.retain(|address| address.ip().is_loopback());
        }
        let tcp = TcpStream::connect(addresses.as_slice()).await?;
        tcp.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(tcp),
            Some(tls) => Box::new(tls.connect(self.host(), tcp).await?),
        })
    }
}

/// Why a call failed, with a remedy where there is one.
#[must_use]
pub fn explain(error: &io::Error) -> String {
    if let Some(reason) = client::explain(error) {
        return reason;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused; the process listens at the addresses in `admin.listen`".to_owned()
        }
        io::ErrorKind::TimedOut => "no response in time".to_owned(),
        _ => error.to_string(),
    }
}

fn authorization(file: &Path) -> Result<HeaderValue, String> {
    let token = token::read_text(file).map_err(|(problem, hint)| format!("{problem}; {hint}"))?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|e| e.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_is_an_https_url_or_an_http_url_on_this_machine() {
        let new = |url: &str| Remote::new(url, ClientFiles::default()).map(|remote| remote.port);
        assert_eq!(new("http://localhost:9443"), Ok(9443));
        assert_eq!(new("http://127.0.0.1:9443/"), Ok(9443));
        assert_eq!(new("http://[::1]"), Ok(80));
        for (url, said) in [
            ("http://192.0.2.1:9443", "needs TLS"),
            ("http://lb.example.com", "needs TLS"),
            ("localhost:9443", "is not a server"),
            ("https://", "is not a server"),
            ("http://localhost/api", "is not a server"),
            ("http://user@localhost", "is not a server"),
            ("ftp://localhost", "is not a server"),
        ] {
            assert!(new(url).is_err_and(|e| e.contains(said)), "{url}");
        }
    }
}
