//! The target of a backend: an IP address with a port, a Unix domain socket, or a host name with a port.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::base::backend_address::{BackendAddress, NotAnAddress, UNIX};

/// The interval of resolution. The system resolver does not return a time to live.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);

/// The target of a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// An IP address with a port, or a Unix domain socket.
    Address(BackendAddress),
    /// A host name and a port.
    Name {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
    },
}

impl Target {
    /// Whether it must be resolved.
    #[must_use]
    pub fn is_name(&self) -> bool {
        matches!(self, Self::Name { .. })
    }

    /// Its current addresses.
    ///
    /// # Errors
    /// The message of the system resolver.
    pub async fn resolve(&self) -> Result<Vec<BackendAddress>, String> {
        match self {
            Self::Address(address) => Ok(vec![*address]),
            Self::Name { host, port } => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|e| e.to_string())?;
                let addresses: Vec<BackendAddress> = found.map(BackendAddress::from).collect();
                if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Target {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if text.starts_with(UNIX) {
            return text.parse().map(Self::Address);
        }
        if text.starts_with(['/', '@', '.']) || text.starts_with("unix") && text.contains(['/', '@']) {
            return Err(not_a_target(format!("`{text}` is not the address of a Unix domain socket"), UNIX_EXAMPLE));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(not_a_target(format!("`{text}` has port 0"), EXAMPLE)),
                _ => Ok(Self::Address(address.into())),
            };
        }
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| not_a_target(format!("`{text}` has no port"), EXAMPLE))?;
        let port = port.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| not_a_target(format!("`{text}` has no valid port (1 to 65535)"), EXAMPLE))?;
        if !is_host_name(host) {
            return Err(not_a_target(format!("`{host}` is neither an IP address nor a host name"), EXAMPLE));
        }
        Ok(Self::Name { host: host.to_owned(), port })
    }
}

const EXAMPLE: &str = "write address:port, such as 127.0.0.1:8081";
const UNIX_EXAMPLE: &str = "write `unix:` and an absolute path, such as unix:/run/app.sock";

fn not_a_target(problem: String, hint: &'static str) -> NotAnAddress {
    NotAnAddress::new(problem, hint)
}

/// Labels of letters, digits, `-` and `_` (Docker service names contain it), not only digits and dots.
pub(in crate::discovery) fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    name.len() <= 253 && name.split('.').all(label) && !name.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_parsed() {
        assert_eq!("127.0.0.1:8081".parse(), Ok(Target::Address("127.0.0.1:8081".parse().unwrap())));
        assert_eq!("[::1]:8081".parse(), Ok(Target::Address("[::1]:8081".parse().unwrap())));
        for socket in ["unix:/run/app.sock", "unix:@app"] {
            assert_eq!(socket.parse(), Ok(Target::Address(socket.parse().unwrap())));
        }
        for name in ["localhost:80", "backend_1:8081", "a.b.example.com.:443"] {
            assert_eq!(name.parse::<Target>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn invalid_target_is_reported_with_its_problem() {
        for (text, problem) in [
            ("127.0.0.1", "has no port"),
            ("127.0.0.1:0", "has port 0"),
            ("host:99999", "no valid port"),
            ("host:http", "no valid port"),
            ("256.1.1.1:80", "neither an IP address nor a host name"),
            ("http://host:80", "neither an IP address nor a host name"),
            ("-x:80", "neither"),
            (":80", "neither"),
            ("/run/app.sock", "not the address of a Unix domain socket"),
            ("@app", "not the address of a Unix domain socket"),
            ("unix@/run/app.sock", "not the address of a Unix domain socket"),
            ("unix//run/app.sock", "not the address of a Unix domain socket"),
            ("unix:run/app.sock", "is relative"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn localhost_resolves() {
        let addresses = "localhost:80".parse::<Target>().unwrap().resolve().await.unwrap();
        let inet = |address: &BackendAddress| address.inet().unwrap();
        assert!(addresses.iter().map(inet).all(|a| a.ip().is_loopback() && a.port() == 80));
    }
}
