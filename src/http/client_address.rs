//! The client address: the peer, or the client named by trusted proxies.
//!
//! `X-Forwarded-For` grows to the right: each proxy appends the address that it saw. Everything left of the
//! last untrusted hop was written by that hop and may be forged. So the list is read from right to left, and
//! the first address that is not a trusted proxy is the client. Reading from the left, as some proxies do by
//! default, lets any client choose its address.
//!
//! `Forwarded` (RFC 7239) is read in the same way, but only without `X-Forwarded-For`: most proxies set that one and
//! pass on whatever `Forwarded` a client sends.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::forwarded::{self, parse_hop};

/// The header with the client address and the proxies that it has passed.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

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

    /// The client address of a request from `peer`.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if headers.contains_key(X_FORWARDED_FOR) {
            return self.client_by_lines(peer, headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes));
        }
        let lines = headers.get_all(FORWARDED).iter().rev();
        let elements = lines.flat_map(|line| forwarded::elements(line.as_bytes()));
        self.last_untrusted(peer, elements.map(forwarded::Element::client))
    }

    /// The client address, for the peer of the connection and the values of all `X-Forwarded-For` header lines
    /// in the order of arrival.
    #[must_use]
    pub fn client_by_lines<'a>(&self, peer: IpAddr, lines: impl DoubleEndedIterator<Item = &'a [u8]>) -> IpAddr {
        let hops = lines.rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        self.last_untrusted(peer, hops.map(|hop| parse_hop(str::from_utf8(hop).ok()?)))
    }

    /// The peer, or the first of `hops` from right to left that is not a trusted proxy. A hop without an address ends
    /// the search: the hop before it is the client.
    fn last_untrusted(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut client = canonical(peer);
        for hop in hops {
            match hop {
                Some(hop) if self.contains(client) => client = canonical(hop),
                _ => break,
            }
        }
        client
    }

    /// The scheme that the client has used, according to the `Forwarded` of a trusted `peer`.
    #[must_use]
    pub fn scheme_in_forwarded(&self, peer: IpAddr, headers: &HeaderMap) -> Option<&'static str> {
        let mut before = canonical(peer);
        let mut scheme = None;
        let lines = headers.get_all(FORWARDED).iter().rev();
        for element in lines.flat_map(|line| forwarded::elements(line.as_bytes())) {
            if !self.contains(before) {
                break;
            }
            scheme = element.scheme().or(scheme);
            let Some(hop) = element.client() else { break };
            before = canonical(hop);
        }
        scheme
    }
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
        proxies(trusted).client_by_lines(ip(peer), lines.iter().map(|line| line.as_bytes()))
    }

    fn proxies(trusted: &[&str]) -> TrustedProxies {
        TrustedProxies::new(trusted.iter().map(|net| net.parse().unwrap()).collect())
    }

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
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
        for line in
            ["203.0.113.9, unknown", "203.0.113.9, ", "203.0.113.9, 1.2.3", "203.0.113.9, [::1", "203.0.113.9, [::1]x"]
        {
            assert_eq!(client(&trusted, "10.0.0.1", &[line]), ip("10.0.0.1"), "{line}");
        }
    }

    #[test]
    fn ports_and_brackets_are_parsed() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(client(&trusted, "10.0.0.1", &["203.0.113.9:4711"]), ip("203.0.113.9"));
        assert_eq!(client(&trusted, "10.0.0.1", &["[2001:db8::7]:4711"]), ip("2001:db8::7"));
        assert_eq!(client(&trusted, "10.0.0.1", &["[2001:db8::7]"]), ip("2001:db8::7"));
        assert_eq!(client(&trusted, "10.0.0.1", &["2001:db8::7"]), ip("2001:db8::7"));
        assert_eq!(client(&trusted, "10.0.0.1", &["6.6.6.6, [2001:db8::7]:1,10.0.0.2:80"]), ip("2001:db8::7"));
        assert_eq!(client(&trusted, "::ffff:10.0.0.1", &["::ffff:203.0.113.9"]), ip("203.0.113.9"));
    }

    #[test]
    fn bytes_beyond_ascii_hide_no_hop_behind_them() {
        let line = b"\xff, 203.0.113.9".as_slice();
        assert_eq!(proxies(&["10.0.0.0/8"]).client_by_lines(ip("10.0.0.1"), [line].into_iter()), ip("203.0.113.9"));
    }

    #[test]
    fn forwarded_is_used_only_without_x_forwarded_for() {
        let (trusted, proxy) = (proxies(&["10.0.0.0/8", "2001:db8::/32"]), ip("10.0.0.1"));
        let lines = [
            (FORWARDED, "for=6.6.6.6, for=\"203.0.113.9:4711\";proto=https"),
            (FORWARDED, "for=\"[2001:db8::5]\";proto=http, for=10.0.0.2"),
        ];
        let forwarded = headers(&lines);
        assert_eq!(trusted.client(proxy, &forwarded), ip("203.0.113.9"));
        assert_eq!(trusted.scheme_in_forwarded(proxy, &forwarded), Some("https"), "the scheme of the client's element");
        assert_eq!(trusted.client(ip("192.0.2.1"), &forwarded), ip("192.0.2.1"), "the peer is not trusted");
        assert_eq!(trusted.scheme_in_forwarded(ip("192.0.2.1"), &forwarded), None);
        let both = headers(&[(FORWARDED, "for=6.6.6.6"), (X_FORWARDED_FOR, "203.0.113.8")]);
        assert_eq!(trusted.client(proxy, &both), ip("203.0.113.8"));
        let hidden = headers(&[(FORWARDED, "for=203.0.113.9, for=unknown, for=10.0.0.2")]);
        assert_eq!(trusted.client(proxy, &hidden), ip("10.0.0.2"), "a hidden hop ends the search");
        assert_eq!(trusted.client(proxy, &HeaderMap::new()), proxy);
    }

    #[test]
    fn ipv6_clients_are_keyed_by_their_64() {
        assert_eq!(ClientKey::from(ip("2001:db8:1:2::1")), ClientKey::from(ip("2001:db8:1:2:ffff::9")));
        assert_ne!(ClientKey::from(ip("2001:db8:1:2::1")), ClientKey::from(ip("2001:db8:1:3::1")));
        assert_ne!(ClientKey::from(ip("192.0.2.1")), ClientKey::from(ip("192.0.2.2")));
        assert_eq!(ClientKey::from(ip("::ffff:192.0.2.1")), ClientKey::from(ip("192.0.2.1")));
    }
}
