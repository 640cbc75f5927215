//! The URL of a service that l7lb asks.

use std::fmt;

use rustls::pki_types::ServerName;

/// Where a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it uses TLS.
    pub tls: bool,
    /// A host name or an IP address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Endpoint {
    /// Reads a URL with scheme, host, and optionally a port and a path. Returns the path too, without a slash at its end.
    ///
    /// # Errors
    /// A sentence about the URL.
    pub fn parse(text: &str, default_port: impl FnOnce(bool) -> u16) -> Result<(Self, String), String> {
        let not_a_url = || format!("`{text}` is not the URL of an endpoint");
        let url: http::Uri = text.parse().map_err(|_| not_a_url())?;
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(not_a_url()),
        };
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if url.query().is_some() || ServerName::try_from(host.as_str()).is_err() {
            return Err(not_a_url());
        }
        let port = url.port_u16().unwrap_or_else(|| default_port(tls));
        Ok((Self { tls, host, port }, url.path().trim_end_matches('/').to_owned()))
    }

    /// The host and the port, as in the header `Host`.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_a_url_with_a_scheme_and_a_host() {
        let port = |tls| if tls { 443 } else { 80 };
        for (text, expected, path) in [
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379", ""),
            ("https://etcd-1.internal/", "https://etcd-1.internal:443", ""),
            ("https://a/k8s/clusters/b/", "https://a:443", "/k8s/clusters/b"),
            ("http://[::1]", "http://[::1]:80", ""),
        ] {
            let (endpoint, rest) = Endpoint::parse(text, port).unwrap();
            assert_eq!((endpoint.to_string().as_str(), rest.as_str()), (expected, path));
        }
        for text in ["127.0.0.1:2379", "ftp://a:1", "http://", "http://a?b", "http://a b", "etcd"] {
            assert!(Endpoint::parse(text, port).unwrap_err().contains("is not the URL"), "{text}");
        }
    }
}
