//! Who the client is: the peer's address, or what trusted proxies in front of us say it is.
//!
//! `X-Forwarded-For` grows to the right: each proxy appends the address that it saw. Whatever
//! stands to the left of the last untrusted hop was written by that hop and may be a lie, so the
//! list is walked from right to left, and the first address that is not a trusted proxy is the
//! client. Walking from the left, as some do by default, lets any client choose its own address.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// The proxies in front of us whose `X-Forwarded-For` is believed. Empty unless configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts the hops whose address is in one of `networks`.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `address` is one of the trusted hops.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address, given the connection's peer and the values of all `X-Forwarded-For`
    /// header lines in the order in which they were received.
    ///
    /// A part that is not an address ends the walk: the hop before it is the last one known.
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

/// Reads one element of `X-Forwarded-For`: an address, an address with a port, or a bracketed IPv6.
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

/// An IPv4 address that arrived on a dual-stack socket is an IPv4 address.
#[must_use]
pub fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// What limits count by: an IPv4 address, or an IPv6 /64.
///
/// One subscriber has at least a /64 of IPv6 addresses; counting each would make limits pointless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(pub u64);

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        match canonical(address) {
            // ffff::/16 is multicast and never a client's, so IPv4 keys collide with no /64.
            IpAddr::V4(v4) => Self(0xffff_0000_0000_0000 | u64::from(u32::from(v4))),
            IpAddr::V6(v6) => Self(prefix_64(v6)),
        }
    }
}

/// The upper half of an IPv6 address.
fn prefix_64(address: Ipv6Addr) -> u64 {
    // The shift leaves 64 significant bits, so nothing is cut.
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
    fn without_trust_the_peer_is_the_client() {
        assert_eq!(client(&[], "192.0.2.1", &["203.0.113.9"]), ip("192.0.2.1"));
    }

    #[test]
    fn the_walk_goes_right_to_left_and_stops_at_the_first_untrusted_hop() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(client(&trusted, "10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.1.1.1"]), ip("203.0.113.9"));
        assert_eq!(client(&trusted, "10.0.0.1", &["6.6.6.6", "203.0.113.9", "10.1.1.1"]), ip("203.0.113.9"));
        assert_eq!(client(&trusted, "192.0.2.1", &["6.6.6.6"]), ip("192.0.2.1"), "an untrusted peer says nothing");
        assert_eq!(client(&trusted, "10.0.0.1", &[]), ip("10.0.0.1"));
        assert_eq!(client(&trusted, "10.0.0.1", &["10.2.2.2, 10.3.3.3"]), ip("10.2.2.2"), "all trusted: the farthest");
    }

    #[test]
    fn a_part_that_is_no_address_ends_the_walk() {
        let trusted = ["10.0.0.0/8"];
        for line in ["203.0.113.9, unknown", "203.0.113.9, ", "203.0.113.9, 1.2.3", "203.0.113.9, [::1"] {
            assert_eq!(client(&trusted, "10.0.0.1", &[line]), ip("10.0.0.1"), "{line}");
        }
    }

    #[test]
    fn ports_and_brackets_are_read() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(client(&trusted, "10.0.0.1", &["203.0.113.9:4711"]), ip("203.0.113.9"));
        assert_eq!(client(&trusted, "10.0.0.1", &["[2001:db8::7]:4711"]), ip("2001:db8::7"));
        assert_eq!(client(&trusted, "10.0.0.1", &["2001:db8::7"]), ip("2001:db8::7"));
        assert_eq!(client(&trusted, "::ffff:10.0.0.1", &["::ffff:203.0.113.9"]), ip("203.0.113.9"));
    }

    #[test]
    fn ipv6_clients_count_by_their_64() {
        assert_eq!(ClientKey::from(ip("2001:db8:1:2::1")), ClientKey::from(ip("2001:db8:1:2:ffff::9")));
        assert_ne!(ClientKey::from(ip("2001:db8:1:2::1")), ClientKey::from(ip("2001:db8:1:3::1")));
        assert_ne!(ClientKey::from(ip("192.0.2.1")), ClientKey::from(ip("192.0.2.2")));
        assert_eq!(ClientKey::from(ip("::ffff:192.0.2.1")), ClientKey::from(ip("192.0.2.1")));
    }
}
