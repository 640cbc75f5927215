//! An authority without userinfo: `uri-host [":" port]` (RFC 9110 §7.2), of Host and absolute forms.

use std::net::Ipv6Addr;

use crate::http::rejection::DetailedRejection;
use crate::http::target::is_unreserved;

/// Checks an authority: a name, an IPv4 address, or an IPv6 address in brackets, with an optional port. Names
/// have letters, digits and `-._~` only: RFC 3986 allows more, but no DNS name has them, and commas and `%` are
/// ambiguous.
///
/// # Errors
/// [`crate::http::rejection::Rejection::BadRequest`].
pub fn check(text: &[u8]) -> Result<(), DetailedRejection> {
    if text.contains(&b'@') {
        return Err(DetailedRejection::bad_request("userinfo before the host"));
    }
    let colon = match text {
        [b'[', ..] => text.iter().position(|byte| *byte == b']').map(|bracket| bracket + 1),
        _ => Some(text.iter().position(|byte| *byte == b':').unwrap_or(text.len())),
    };
    let malformed = DetailedRejection::bad_request("a host that is neither a name nor an address");
    let (host, port) = colon.and_then(|colon| text.split_at_checked(colon)).ok_or(malformed)?;
    let legal = match host {
        [b'[', address @ .., b']'] => str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok()),
        _ => !host.is_empty() && host.iter().copied().all(is_unreserved),
    };
    if !legal {
        return Err(malformed);
    }
    match port {
        [] | [b':'] => Ok(()),
        [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
            let number: Option<u16> = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            number.map(drop).ok_or(DetailedRejection::bad_request("a port above 65535"))
        }
        _ => Err(DetailedRejection::bad_request("a port that is not a number")),
    }
}
