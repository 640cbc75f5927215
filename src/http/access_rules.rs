//! Rules by address: which peers may connect.

use std::net::IpAddr;

use ipnet::IpNet;

use super::client_address::canonical;

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client may continue.
    Allow,
    /// It may not.
    Deny,
}

/// Rules by address, in order: the first one with the address decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRules {
    rules: Vec<(Verdict, Vec<IpNet>)>,
    default: Verdict,
}

impl AddressRules {
    /// The rules, and what applies to other addresses.
    #[must_use]
    pub fn new(rules: Vec<(Verdict, Vec<IpNet>)>, default: Verdict) -> Self {
        Self { rules, default }
    }

    /// The verdict about an address.
    #[must_use]
    pub fn verdict(&self, address: IpAddr) -> Verdict {
        let address = canonical(address);
        let rule = self.rules.iter().find(|(_, networks)| contains(networks, address));
        rule.map_or(self.default, |(verdict, _)| *verdict)
    }
}

/// Whether one of the networks contains the address, which is [`canonical`].
#[must_use]
pub fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_rule_with_the_address_decides_and_the_default_otherwise() {
        let networks = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let rules = AddressRules::new(
            vec![
                (Verdict::Deny, networks(&["10.1.0.0/16", "2001:db8:1::/48"])),
                (Verdict::Allow, networks(&["10.0.0.0/8"])),
                (Verdict::Allow, networks(&["2001:db8::/32"])),
            ],
            Verdict::Deny,
        );
        for (address, allowed) in [
            ("10.0.0.1", true),
            ("10.1.2.3", false),
            ("::ffff:10.0.0.1", true),
            ("::ffff:10.1.0.1", false),
            ("2001:db8:1::1", false),
            ("2001:db8:2::1", true),
            ("192.0.2.1", false),
            ("::a00:1", false),
        ] {
            let wanted = if allowed { Verdict::Allow } else { Verdict::Deny };
            assert_eq!(rules.verdict(address.parse().unwrap()), wanted, "{address}");
        }
    }
}
