//! Version 2 (§2.2): a signature of 12 bytes, command, family, length, addresses, attributes (TLV).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{HEADER_MAX, Header, Malformed};
use crate::http::client_address::canonical;

/// The start of every header; no other protocol starts like that.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length of the rest.
const FIXED: usize = 16;

/// Version 2 in the upper half of the byte, the command in the lower.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// The family in the upper half of the byte, the transport (stream or datagram) in the lower. A proxy with QUIC
/// clients may name UDP; the address is valid as well.
const UNSPECIFIED: u8 = 0x00;
const IPV4: [u8; 2] = [0x11, 0x12];
const IPV6: [u8; 2] = [0x21, 0x22];
const UNIX: [u8; 2] = [0x31, 0x32];

/// Two paths of 108 bytes.
const UNIX_ADDRESSES: usize = 216;

/// The attribute that holds a checksum over the header (§2.2.3).
const CRC32C: u8 = 0x03;

/// Parses a header.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let command = bytes.get(12).copied();
    if command.is_some_and(|command| command != LOCAL && command != PROXY) {
        return Err(Malformed("an unknown version or command"));
    }
    let family = bytes.get(13).copied();
    let known = |family: u8| family == UNSPECIFIED || [IPV4, IPV6, UNIX].iter().any(|known| known.contains(&family));
    if command == Some(PROXY) && family.is_some_and(|family| !known(family)) {
        return Err(Malformed("an unknown address family"));
    }
    let Some((&[.., command, family, length_high, length_low], _)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(None);
    };
    let end = FIXED + usize::from(u16::from_be_bytes([length_high, length_low]));
    if end > HEADER_MAX {
        return Err(Malformed("a header of more than 4,096 bytes"));
    }
    let Some(header) = bytes.get(..end) else {
        return Ok(None);
    };
    // The family of a LOCAL header must be ignored, so the start of its attributes is unknown; the same is true
    // for addresses of an unspecified family.
    if command == LOCAL || family == UNSPECIFIED {
        return Ok(Some((Header::default(), end)));
    }
    let short = Malformed("shorter than its addresses");
    let (addressed, attributes) = addresses(family, header.get(FIXED..).unwrap_or_default()).ok_or(short)?;
    check_attributes(header, attributes)?;
    Ok(Some((addressed, end)))
}

/// Splits the part after the fixed bytes into addresses and attributes.
fn addresses(family: u8, rest: &[u8]) -> Option<(Header, &[u8])> {
    if UNIX.contains(&family) {
        return Some((Header::default(), rest.get(UNIX_ADDRESSES..)?));
    }
    let (source, destination, rest) = if IPV4.contains(&family) {
        let (source, rest) = rest.split_first_chunk::<4>()?;
        let (destination, rest) = rest.split_first_chunk::<4>()?;
        (IpAddr::V4(Ipv4Addr::from(*source)), IpAddr::V4(Ipv4Addr::from(*destination)), rest)
    } else {
        let (source, rest) = rest.split_first_chunk::<16>()?;
        let (destination, rest) = rest.split_first_chunk::<16>()?;
        (IpAddr::V6(Ipv6Addr::from(*source)), IpAddr::V6(Ipv6Addr::from(*destination)), rest)
    };
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let (to, rest) = rest.split_first_chunk::<2>()?;
    let source = SocketAddr::new(source, u16::from_be_bytes(*from));
    let destination = SocketAddr::new(destination, u16::from_be_bytes(*to));
    Some((Header::between(source, destination), rest))
}

/// Checks the attributes at the end of `header`: each must be complete, and a checksum must match.
fn check_attributes(header: &[u8], attributes: &[u8]) -> Result<(), Malformed> {
    let mut rest = attributes;
    let mut checked = false;
    while !rest.is_empty() {
        let cut = Malformed("a truncated attribute");
        let (&[kind, high, low], after) = rest.split_first_chunk::<3>().ok_or(cut)?;
        let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes([high, low]))).ok_or(cut)?;
        rest = after;
        if kind != CRC32C {
            continue;
        }
        let value = <[u8; 4]>::try_from(value).map_err(|_| Malformed("a checksum that is not 4 bytes long"))?;
        if checked {
            return Err(Malformed("two checksums"));
        }
        checked = true;
        let before = header.len() - after.len() - value.len();
        let zeroed = header.iter().take(before).chain(&[0; 4]).chain(after);
        if crc32c(zeroed) != u32::from_be_bytes(value) {
            return Err(Malformed("a checksum mismatch"));
        }
    }
    Ok(())
}

/// The checksum of RFC 4960, appendix B, bit by bit: a header is short and sent once per connection, so a
/// faster implementation would not matter.
pub(super) fn crc32c<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
    !bytes.into_iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// The header of a connection from `source`, a client, to `destination`, the address it connected to.
///
/// If only one address is IPv4, it is written as an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2), because a
/// header has one family.
#[must_use]
pub fn encode_v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut header = Vec::with_capacity(FIXED + 36);
    header.extend_from_slice(SIGNATURE);
    match (canonical(source.ip()), canonical(destination.ip())) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.extend_from_slice(&[PROXY, 0x11, 0, 12]);
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
        }
        (source, destination) => {
            header.extend_from_slice(&[PROXY, 0x21, 0, 36]);
            header.extend_from_slice(&mapped(source).octets());
            header.extend_from_slice(&mapped(destination).octets());
        }
    }
    header.extend_from_slice(&source.port().to_be_bytes());
    header.extend_from_slice(&destination.port().to_be_bytes());
    header
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// The header of a connection of the proxy itself, such as a health check.
#[must_use]
pub fn encode_local() -> [u8; FIXED] {
    *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
}
