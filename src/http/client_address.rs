//! The client address: the peer, or the client named by trusted proxies.
//!
//! `X-Forwarded-For` grows to the right: each proxy appends the address that it saw. Everything left of the
//! last untrusted hop was written by that hop and may be forged. So the list is read from right to left, and
//! the first address that is not a trusted proxy is the client. Reading from the left, as some proxies do by
//! default, lets any client choose its address.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// The trusted proxies in front of l7lb. Empty unless configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts the addresses in `networks`.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `address` is a trusted proxy.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client address, for the peer of the connection and the values of all `X-Forwarded-For` header lines
    /// in the order of arrival.
    ///
    /// A part that is not an address ends the search: the hop before it is the client.
    #[must_use]
    pub fn client<'a>(&self, peer: IpAddr, forwarded_for: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        let mut client = canonical(peer);
        for part in forwarded_for.rev().flat_map(|line| line.rsplit(',')) {
            if !self.contains(client) {
                break;
            }
            match parse_hop(part) {
                Some(hop) => client = hop,
                None => break,
            }
        }
        client
    }
}

/// Parses one element of `X-Forwarded-For`: an address, an address with a port, or a bracketed IPv6 address.
fn parse_hop(part: &str) -> Option<IpAddr> {
    let part = part.trim();
    let address = part.parse().ok().or_else(|| {
        let host = match part.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']')?.0,
            None => part.rsplit_once(':')?.0,
        };
        host.parse().ok()
    })?;
    Some(canonical(address))
}

/// Converts an IPv4-mapped IPv6 address to IPv4.
#[must_use]
pub fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// The key of per-client limits: an IPv4 address, or an IPv6 /64.
///
/// A subscriber has at least a /64 of IPv6 addresses; counting each address would make limits useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(pub u64);

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        match canonical(address) {
            // ffff::/16 is multicast and never a client, so IPv4 keys do not collide with a /64.
            IpAddr::V4(v4) => Self(0xffff_0000_0000_0000 | u64::from(u32::from(v4))),
            IpAddr::V6(v6) => Self(prefix_64(v6)),
        }
    }
}

/// The upper half of an IPv6 address.
fn prefix_64(address: Ipv6Addr) -> u64 {
    // The shift leaves 64 significant bits.
    (u128::from(address) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(trusted: &[&str], peer: &str, lines: &[&str]) -> IpAddr {
        TrustedProxies::new(trusted.iter().map(|net| net.parse().unwrap()).collect())
            .client(ip(peer), lines.iter().copied())
    }

    #[test]
    fn peer_is_the_client_without_trusted_proxies() {
        assert_eq!(client(&[], "192.0.2.1", &["203.0.113.9"]), ip("192.0.2.1"));
    }

    #[test]
    fn first_untrusted_hop_from_the_right_is_the_client() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(client(&trusted, "10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.1.1.1"]), ip("203.0.113.9"));
        assert_eq!(client(&trusted, "10.0.0.1", &["6.6.6.6", "203.0.113.9", "10.1.1.1"]), ip("203.0.113.9"));
        assert_eq!(
            client(&trusted, "192.0.2.1", &["6.6.6.6"]),
            ip("192.0.2.1"),
            "the header of an untrusted peer is ignored"
        );
        assert_eq!(client(&trusted, "10.0.0.1", &[]), ip("10.0.0.1"));
        assert_eq!(
            client(&trusted, "10.0.0.1", &["10.2.2.2, 10.3.3.3"]),
            ip("10.2.2.2"),
            "all hops are trusted: the first one is the client"
        );
    }

    #[test]
    fn invalid_address_ends_the_search() {
        let trusted = ["10.0.0.0/8"];
        for line in ["203.0.113.9, unknown", "203.0.113.9, ", "203.0.113.9, 1.2.3", "203.0.113.9, [::1"] {
            assert_eq!(client(&trusted, "10.0.0.1", &[line]), ip("10.0.0.1"), "{line}");
        }
    }

    #[test]
    fn ports_and_brackets_are_parsed() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(client(&trusted, "10.0.0.1", &["203.0.113.9:4711"]), ip("203.0.113.9"));
        assert_eq!(client(&trusted, "10.0.0.1", &["[2001:db8::7]:4711"]), ip("2001:db8::7"));
        assert_eq!(client(&trusted, "10.0.0.1", &["2001:db8::7"]), ip("2001:db8::7"));
        assert_eq!(client(&trusted, "::ffff:10.0.0.1", &["::ffff:203.0.113.9"]), ip("203.0.113.9"));
    }

    #[test]
    fn ipv6_clients_are_keyed_by_their_64() {
        assert_eq!(ClientKey::from(ip("2001:db8:1:2::1")), ClientKey::from(ip("2001:db8:1:2:ffff::9")));
        assert_ne!(ClientKey::from(ip("2001:db8:1:2::1")), ClientKey::from(ip("2001:db8:1:3::1")));
        assert_ne!(ClientKey::from(ip("192.0.2.1")), ClientKey::from(ip("192.0.2.2")));
        assert_eq!(ClientKey::from(ip("::ffff:192.0.2.1")), ClientKey::from(ip("192.0.2.1")));
    }
}
