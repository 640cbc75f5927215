//! The resolvers and search domains of the system, from /etc/resolv.conf. It is read before each list, so changes apply.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::rr::Name;

use super::config::RESOLVERS_MAX;

const PATH: &str = "/etc/resolv.conf";

/// What the file says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct System {
    /// The resolvers, at most three.
    pub resolvers: Vec<SocketAddr>,
    search: Vec<Name>,
    /// A name with this many dots is asked for as it is first.
    dots: u32,
}

impl System {
    /// Reads the file on a thread for blocking work. Without the file there are no resolvers and no search domains.
    pub(super) async fn read() -> Self {
        let read = tokio::task::spawn_blocking(|| std::fs::read(PATH).unwrap_or_default()).await;
        Self::parse(&read.unwrap_or_default())
    }

    fn parse(text: &[u8]) -> Self {
        // As for the C library, a line that cannot be understood does not matter.
        let (file, _) = resolv_conf::Config::parse_with_errors(text);
        let resolver = |ip: &resolv_conf::ScopedIp| SocketAddr::new(IpAddr::from(ip), 53);
        let domain = |text: &String| Name::from_ascii(text).ok().filter(|domain| !domain.is_root());
        Self {
            resolvers: file.nameservers.iter().take(RESOLVERS_MAX).map(resolver).collect(),
            search: file.get_last_search_or_domain().filter_map(domain).collect(),
            dots: file.ndots,
        }
    }

    /// The complete names that `name` may mean, in the order in which they are asked for.
    pub(super) fn candidates(&self, name: &Name, search: bool) -> Vec<Name> {
        let mut complete = name.clone();
        complete.set_fqdn(true);
        if name.is_fqdn() || !search {
            return vec![complete];
        }
        let with = |domain: &Name| {
            let mut name = name.clone().append_domain(domain).ok()?;
            name.set_fqdn(true);
            Some(name)
        };
        let mut names: Vec<Name> = self.search.iter().filter_map(with).collect();
        let dots = u32::from(name.num_labels()).saturating_sub(1);
        let place = if dots >= self.dots { 0 } else { names.len() };
        names.insert(place, complete);
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(text: &str, name: &str, search: bool) -> Vec<String> {
        let system = System::parse(text.as_bytes());
        let names = system.candidates(&Name::from_ascii(name).unwrap(), search);
        names.iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn resolvers_and_search_domains_are_read() {
        let text = "nameserver 10.0.0.1\nnameserver fd00::1\nnonsense\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n";
        let resolvers = System::parse(text.as_bytes()).resolvers;
        assert_eq!(
            resolvers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.1:53", "[fd00::1]:53", "10.0.0.2:53"]
        );
        assert!(System::parse(b"").resolvers.is_empty());
    }

    #[test]
    fn name_without_dot_at_the_end_is_searched_for_in_the_domains() {
        let text = "search a.example b.example\noptions ndots:2\n";
        assert_eq!(candidates(text, "api.x", true), ["api.x.a.example.", "api.x.b.example.", "api.x."]);
        assert_eq!(candidates(text, "api.x.y", true), ["api.x.y.", "api.x.y.a.example.", "api.x.y.b.example."]);
        assert_eq!(candidates(text, "api.x.", true), ["api.x."]);
        assert_eq!(candidates(text, "api.x", false), ["api.x."]);
        assert_eq!(candidates("", "api", true), ["api."]);
    }
}
