//! The PROXY protocol of HAProxy, versions 1 and 2: the client address before the first byte.
//!
//! A proxy that forwards bytes (a network load balancer of a cloud, HAProxy in TCP mode) hides the client's
//! address. So it writes one header at the start of the connection, before TLS and HTTP: a line of text
//! (version 1) or a binary block (version 2). The specification is `doc/proxy-protocol.txt` of HAProxy; section
//! numbers below refer to it.
//!
//! Both directions are here, without I/O: [`parse`] for listeners, [`encode_v2`] and [`encode_local`] for
//! backends. A header from an untrusted peer must never be parsed: it may be forged.
//!
//! The parser is strict, because limits and logs use the address. It never guesses whether a header is present:
//! bytes that cannot become one are [`Malformed`], as section 2 requires.

use std::fmt;
use std::net::SocketAddr;

mod v1;
mod v2;

pub use v2::{encode_local, encode_v2};

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
    fn between(source: SocketAddr, destination: SocketAddr) -> Self {
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

/// Parses the header at the start of `bytes`, all bytes received so far.
///
/// `None`: more bytes are needed, at most [`HEADER_MAX`] in total. Otherwise the header and its length; the
/// bytes after it belong to the next protocol.
///
/// May be called again after each byte: an incomplete header costs at most 107 bytes of examination.
///
/// # Errors
/// As soon as the bytes cannot become a header.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    if begins(bytes, v1::SIGNATURE) {
        v1::parse(bytes)
    } else if begins(bytes, v2::SIGNATURE) {
        v2::parse(bytes)
    } else {
        Err(Malformed("no PROXY protocol signature"))
    }
}

/// Whether `bytes` start with `signature`, as far as they go.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.starts_with(signature) || signature.starts_with(bytes)
}

#[cfg(test)]
mod tests;
