//! Listen addresses: a TCP address, or a Unix-domain socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A listen address: TCP or a Unix-domain socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    /// An IP address and a port.
    Inet(SocketAddr),
    /// The path of a socket.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            // A `sockaddr_un` holds 107 bytes and a NUL.
            Some(path) if path.starts_with('/') && path.len() < 108 => Ok(Self::Unix(path.into())),
            Some(_) => Err("is not an absolute path of at most 107 bytes"),
            None => text.parse().map(Self::Inet).map_err(|_| "is not an IP address with a port"),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_address_is_an_inet_address_with_port_or_an_absolute_socket_path() {
        for text in ["0.0.0.0:80", "[::]:443", "unix:/run/l7lb.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["80", "localhost:80", "unix:relative", "unix:", &format!("unix:/{}", "x".repeat(107))] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
