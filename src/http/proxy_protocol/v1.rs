//! Version 1 (§2.1): `PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\r\n`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{Header, Malformed};

/// The start of every line.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// The longest line, with its end.
const LINE_MAX: usize = 107;

/// Parses a line.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let head = bytes.get(..LINE_MAX).unwrap_or(bytes);
    // A line is printable text up to its end, so the first other byte must be the end.
    let printable = head.iter().take_while(|byte| (0x20..=0x7e).contains(*byte)).count();
    match head.get(printable..).unwrap_or_default() {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] if head.len() < LINE_MAX => return Ok(None),
        [] | [b'\r'] => return Err(Malformed("a line of more than 107 bytes")),
        _ => return Err(Malformed("a line that does not end in CR LF")),
    }
    let line = head.get(..printable).and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    Ok(Some((read(line)?, printable + 2)))
}

/// Parses the line without its end.
fn read(line: &str) -> Result<Header, Malformed> {
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // The rest of the line must be ignored.
        return Ok(Header::default());
    }
    let [Some(source), Some(destination), Some(from), Some(to), None] =
        [words.next(), words.next(), words.next(), words.next(), words.next()]
    else {
        return Err(Malformed("not two addresses and two ports, one space before each"));
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Malformed("not an IPv4 address")),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Malformed("not an IPv6 address")),
        _ => Err(Malformed("neither TCP4, TCP6 nor UNKNOWN")),
    };
    Ok(Header::between(
        SocketAddr::new(address(source)?, port(from)?),
        SocketAddr::new(address(destination)?, port(to)?),
    ))
}

/// A port in decimal, without sign and leading zeros, which `u16` would accept.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(Malformed("not a port"))
}
