//! Which discovered addresses a pool accepts. A source is another system, perhaps with other owners: it must not make
//! l7lb send requests to itself, or to a network that is none of the pool's business.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::base::backend_address::BackendAddress;

/// The rules for the addresses of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRules {
    /// Networks that addresses must belong to; empty for no such limit.
    pub allow: Vec<IpNet>,
    /// Networks that addresses must not belong to.
    pub deny: Vec<IpNet>,
    /// Whether Unix domain sockets are accepted, if there is no `allow`.
    pub accepts_unix: bool,
    /// The listen addresses of l7lb.
    pub own: Arc<[SocketAddr]>,
}

impl AddressRules {
    /// Accepts an address, or gives the reason against it. `is_local` says whether an IP address is one of this host.
    ///
    /// # Errors
    /// Why it is rejected.
    pub fn check(&self, address: BackendAddress, is_local: &dyn Fn(IpAddr) -> bool) -> Result<(), String> {
        let BackendAddress::Inet(address) = address else {
            let accepts = self.accepts_unix && self.allow.is_empty();
            return if accepts { Ok(()) } else { Err("this source must not name Unix domain sockets".to_owned()) };
        };
        let ip = address.ip().to_canonical();
        if address.port() == 0 {
            return Err("it has port 0".to_owned());
        }
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255]) {
            return Err("it is not the address of one host".to_owned());
        }
        if let Some(network) = self.deny.iter().find(|network| network.contains(&ip)) {
            return Err(format!("it is in `deny` ({network})"));
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|network| network.contains(&ip)) {
            return Err("it is not in `allow`".to_owned());
        }
        let is_own = |own: &SocketAddr| {
            let same = if own.ip().is_unspecified() { is_local(ip) } else { own.ip().to_canonical() == ip };
            own.port() == address.port() && same
        };
        if self.own.iter().any(is_own) {
            return Err("it is an address of l7lb itself".to_owned());
        }
        Ok(())
    }
}

/// The IP addresses of this host. Loopback addresses are local without being listed.
#[must_use]
pub fn local_addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    interfaces.filter_map(|interface| ip(interface.address?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_outside_the_rules_are_rejected_with_the_reason() {
        let rules = AddressRules {
            allow: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()],
            deny: vec!["10.9.0.0/16".parse().unwrap()],
            accepts_unix: true,
            own: [SocketAddr::from(([0, 0, 0, 0], 8080)), SocketAddr::from(([127, 0, 0, 5], 81))].into(),
        };
        let local = |ip: IpAddr| ip.is_loopback() || ip == IpAddr::from([10, 0, 0, 1]);
        let check = |rules: &AddressRules, text: &str| rules.check(text.parse().unwrap(), &local).err();
        for accepted in ["10.0.0.2:8080", "[fd00::1]:8080", "127.0.0.1:81", "10.0.0.1:8081", "[::ffff:10.0.0.2]:80"] {
            assert_eq!(check(&rules, accepted), None, "{accepted}");
        }
        for (rejected, reason) in [
            ("192.0.2.1:80", "not in `allow`"),
            ("10.9.1.1:80", "in `deny` (10.9.0.0/16)"),
            ("[::ffff:10.9.1.1]:80", "in `deny`"),
            ("10.0.0.1:8080", "l7lb itself"),
            ("127.0.0.9:8080", "l7lb itself"),
            ("127.0.0.5:81", "l7lb itself"),
            ("0.0.0.0:80", "not the address of one host"),
            ("224.0.0.1:80", "not the address of one host"),
            ("unix:/run/app.sock", "Unix domain sockets"),
        ] {
            let problem = check(&rules, rejected).unwrap_or_default();
            assert!(problem.contains(reason), "{rejected}: {problem}");
        }
        let open = AddressRules { accepts_unix: true, ..AddressRules::default() };
        assert_eq!(check(&open, "unix:/run/app.sock"), None);
        assert!(check(&AddressRules::default(), "unix:/run/app.sock").is_some());
    }

    #[test]
    fn addresses_of_this_host_are_found() {
        assert!(local_addresses().contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
