//! HAProxy's PROXY protocol, versions 1 and 2: who the client is, said ahead of the first byte.
//!
//! A proxy that only passes bytes on (a cloud's network load balancer, HAProxy in TCP mode) hides the
//! client's address. So it writes one header at the beginning of the connection, before TLS, before
//! HTTP: a line of text (version 1) or a binary block (version 2). The specification is
//! `doc/proxy-protocol.txt` of HAProxy; numbers of sections below are its own.
//!
//! Both directions are here, without I/O: [`parse`] for listeners, [`encode_v2`] and [`encode_local`]
//! for backends. A header from somebody who is not trusted must never be parsed: it says whatever its
//! sender likes.
//!
//! The reader is strict, since what it lets pass is taken for the client's address by limits and logs.
//! It never guesses whether a header is there: bytes that cannot become one are [`Malformed`], as
//! section 2 demands.

use std::fmt;
use std::net::SocketAddr;

mod v1;
mod v2;

pub use v2::{encode_local, encode_v2};

/// What a header says. Where it says nothing (health checks, `UNKNOWN`, Unix-domain sockets), the
/// connection's own addresses count (§2.1, §2.2).
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

/// Bytes that are not, and cannot become, a header; the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(
    /// Why, as a clause for the log.
    pub &'static str,
);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PROXY protocol: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// The longest header that is read, in bytes. Version 1 ends at 107 (§2.1); version 2 could have
/// 65,551, but its address block takes at most 216 and the rest are attributes that are passed over.
pub const HEADER_MAX: usize = 4096;

/// Reads the header at the beginning of `bytes`, all that has arrived so far.
///
/// `None`: it may become a header, but more bytes are needed, at most [`HEADER_MAX`] in all. Otherwise
/// the header, and how many bytes it took; what follows belongs to the protocol above.
///
/// May be called again after each byte: an unfinished header costs a look at no more than 107 bytes.
///
/// # Errors
/// As soon as it is certain that no header will come of it.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    if begins(bytes, v1::SIGNATURE) {
        v1::parse(bytes)
    } else if begins(bytes, v2::SIGNATURE) {
        v2::parse(bytes)
    } else {
        Err(Malformed("neither version's signature"))
    }
}

/// Whether `bytes` begin with `signature`, as far as they go.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.starts_with(signature) || signature.starts_with(bytes)
}

#[cfg(test)]
mod tests;
