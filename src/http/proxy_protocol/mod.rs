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

mod header;
mod v1;
mod v2;

pub use header::{HEADER_MAX, Header, Malformed};
pub use v2::{encode_local, encode_v2};

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
