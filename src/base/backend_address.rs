//! The address of a backend: an IP address with a port, or a Unix domain socket.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The longest name of a socket: a `sockaddr_un` has 108 bytes, one of them for the final NUL, or for the first
/// NUL of an abstract name.
pub const NAME_MAX: usize = 107;

/// The prefix of a socket in the configuration and in all output.
pub const UNIX: &str = "unix:";

/// The address of a backend. It identifies the backend in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum BackendAddress {
    /// An IP address and a port.
    Inet(SocketAddr),
    /// A Unix domain socket.
    Unix(SocketPath),
}

/// The path of a Unix domain socket, or `@` and the name of an abstract one (unix(7)). It is stored in place, so
/// that an address can be copied like an IP address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketPath {
    /// Filled with NUL, which no name contains.
    bytes: [u8; NAME_MAX],
    length: u8,
}

/// Why a text is not an address, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAnAddress {
    /// The problem.
    pub problem: String,
    /// The remedy.
    pub hint: &'static str,
}

impl NotAnAddress {
    /// The `problem`, and the remedy `hint`.
    #[must_use]
    pub fn new(problem: impl Into<String>, hint: &'static str) -> Self {
        Self { problem: problem.into(), hint }
    }
}

impl fmt::Display for NotAnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for NotAnAddress {}

impl BackendAddress {
    /// The IP address and port; `None` for a Unix domain socket.
    #[must_use]
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The TCP port; 0 for a Unix domain socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.inet().map_or(0, |address| address.port())
    }
}

impl SocketPath {
    /// The path, or `@` and the abstract name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        // The bytes come from a text, so they are valid.
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Whether the name is an abstract one, which has no file.
    #[must_use]
    pub fn is_abstract(&self) -> bool {
        self.bytes.starts_with(b"@")
    }
}

impl FromStr for SocketPath {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        const EXAMPLE: &str = "write an absolute path, such as unix:/run/app.sock";
        // Some programs write `unix://` before an absolute path.
        let text = match text.trim_start_matches('/') {
            rest if rest.len() + 1 < text.len() => text.get(text.len() - rest.len() - 1..).unwrap_or_default(),
            _ => text,
        };
        if text.is_empty() || text == "/" || text == "@" {
            return Err(NotAnAddress::new("the address names no socket", EXAMPLE));
        }
        if !text.starts_with(['/', '@']) {
            return Err(NotAnAddress::new(format!("the path `{text}` is relative"), EXAMPLE));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\\')) {
            let problem = format!("{text:?} contains a space, a quote, a backslash or a control character");
            return Err(NotAnAddress::new(problem, "rename the socket, or use a symbolic link to it"));
        }
        let mut bytes = [0; NAME_MAX];
        let (Some(room), Ok(length)) = (bytes.get_mut(..text.len()), u8::try_from(text.len())) else {
            let problem = format!("the path of a socket has at most {NAME_MAX} bytes, and this one has {}", text.len());
            return Err(NotAnAddress::new(problem, "use a shorter path, or a symbolic link to its folder"));
        };
        room.copy_from_slice(text.as_bytes());
        Ok(Self { bytes, length })
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BackendAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return path.parse().map(Self::Unix);
        }
        text.parse().map(Self::Inet).map_err(|_| {
            NotAnAddress::new(
                format!("`{text}` is neither an IP address with a port nor a Unix domain socket"),
                "write for example 127.0.0.1:8081, or unix:/run/app.sock",
            )
        })
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            // `pad`, so that the width of a column applies.
            Self::Unix(path) => f.pad(&format!("{UNIX}{path}")),
        }
    }
}

/// As for the address or the path alone: hashes of IP addresses select backends for session affinity.
impl Hash for BackendAddress {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Inet(address) => address.hash(state),
            Self::Unix(path) => path.as_str().hash(state),
        }
    }
}

impl From<SocketAddr> for BackendAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Inet(address)
    }
}

impl From<([u8; 4], u16)> for BackendAddress {
    fn from(address: ([u8; 4], u16)) -> Self {
        Self::Inet(address.into())
    }
}

impl From<BackendAddress> for String {
    fn from(address: BackendAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for BackendAddress {
    type Error = NotAnAddress;

    fn try_from(text: String) -> Result<Self, NotAnAddress> {
        text.parse()
    }
}

impl JsonSchema for BackendAddress {
    fn schema_name() -> Cow<'static, str> {
        "BackendAddress".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_address_is_an_inet_address_with_port_or_a_unix_socket() {
        for text in ["127.0.0.1:80", "[2001:db8::1]:443", "unix:/run/app.sock", "unix:@app", "unix:/run/käse:1"] {
            let address: BackendAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(serde_json::to_string(&address).unwrap(), format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<BackendAddress>(&format!("\"{text}\"")).unwrap(), address);
        }
        for text in ["unix:///run/app.sock", "unix://run/app.sock"] {
            assert_eq!(text.parse::<BackendAddress>().unwrap().to_string(), "unix:/run/app.sock");
        }
        let longest = format!("unix:/{}", "x".repeat(106));
        assert_eq!(longest.parse::<BackendAddress>().unwrap().to_string(), longest);
    }

    #[test]
    fn invalid_socket_path_is_reported_with_its_problem() {
        for (text, problem) in [
            ("unix:", "names no socket"),
            ("unix:/", "names no socket"),
            ("unix:///", "names no socket"),
            ("unix:@", "names no socket"),
            ("unix:run/app.sock", "the path `run/app.sock` is relative"),
            ("unix:./app.sock", "is relative"),
            (&format!("unix:/{}", "x".repeat(107)), "has at most 107 bytes, and this one has 108"),
            (&format!("unix:@{}", "ä".repeat(60)), "this one has 121"),
            ("unix:/run/my app.sock", "contains a space"),
            ("unix:/run/\u{7}.sock", "a control character"),
            ("/run/app.sock", "neither an IP address with a port nor a Unix domain socket"),
            ("localhost:80", "neither"),
        ] {
            let error = text.parse::<BackendAddress>().unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn inet_address_has_the_hash_of_the_bare_address() {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
        assert_eq!(hasher.hash_one(BackendAddress::from(address)), hasher.hash_one(address));
    }
}
