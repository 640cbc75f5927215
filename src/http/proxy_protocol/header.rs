//! The content of a PROXY protocol header, for both versions.

use std::fmt;
use std::net::SocketAddr;

/// The content of a header. Without addresses (health checks, `UNKNOWN`, Unix-domain sockets) those of the
/// connection apply (§2.1, §2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The client's address and port.
    pub source: Option<SocketAddr>,
    /// The address and port that the client connected to.
    pub destination: Option<SocketAddr>,
}

impl Header {
    /// A header with both addresses.
    pub(super) fn between(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { source: Some(source), destination: Some(destination) }
    }
}

/// Bytes that cannot become a header; the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(
    /// The reason, as a clause for the log.
    pub &'static str,
);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PROXY protocol: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// The longest header in bytes. Version 1 ends at 107 (§2.1); version 2 could have 65,551, but its addresses
/// take at most 216 and the rest are attributes that are skipped.
pub const HEADER_MAX: usize = 4096;
