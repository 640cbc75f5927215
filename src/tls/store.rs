//! Selection of a certificate by server name, and the hosts that a connection may serve.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificates::Certificate;

/// The certificates of one listener, selected by exact name, then by wildcard, then the first.
///
/// Several certificates may have the same name with different kinds of keys; the first one whose key the client
/// supports is used.
#[derive(Debug)]
pub(super) struct CertificateStore {
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Vec<Arc<CertifiedKey>>,
}

impl CertificateStore {
    /// A store of `certificates`. The first one, and those with its first name and another kind of key, are for
    /// unknown names.
    #[must_use]
    pub(super) fn new(certificates: &[Certificate]) -> Self {
        let mut by_name: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        for certificate in certificates {
            for name in certificate.names() {
                by_name.entry(name.clone()).or_default().push(Arc::clone(&certificate.key));
            }
        }
        let first = certificates.first();
        let siblings = first.and_then(|first| first.names().first()).and_then(|name| by_name.get(name)).cloned();
        let only_first = || first.map(|first| Arc::clone(&first.key)).into_iter().collect();
        Self { default: siblings.unwrap_or_else(only_first), by_name }
    }

    /// The candidates for a server name.
    fn candidates(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return &self.default;
        };
        self.named(&name).unwrap_or(&self.default)
    }

    /// The certificates for a name in lower case.
    fn named(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        // A wildcard matches exactly one label (RFC 6125 §6.4.3).
        let wildcard = || name.split_once('.').and_then(|(_, parent)| self.by_name.get(&format!("*.{parent}")));
        self.by_name.get(name).or_else(wildcard).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(hello.server_name());
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.iter().find(usable).or(candidates.first()).cloned()
    }
}

/// The names of the certificates of a listener. A connection keeps the names of its start.
#[derive(Debug)]
pub(super) struct CertificateNames(Vec<String>);

impl CertificateNames {
    pub(super) fn of(certificates: &[Certificate]) -> Self {
        let mut names: Vec<String> = certificates.iter().flat_map(Certificate::names).cloned().collect();
        names.sort();
        names.dedup();
        Self(names)
    }

    /// Whether a certificate is for `host`, a name in lower case without a port.
    pub(super) fn has_certificate_for(&self, host: &str) -> bool {
        let has = |name: &str| self.0.binary_search_by(|known| known.as_str().cmp(name)).is_ok();
        has(host) || host.split_once('.').is_some_and(|(_, parent)| has(&format!("*.{parent}")))
    }

    /// Whether a connection with `server_name` may carry requests for `host`, which may have a port (RFC 9110
    /// §7.4).
    ///
    /// The host equals the server name in almost all cases, or the listener has a certificate for it: browsers
    /// send requests for several names on one connection (RFC 9113 §9.1.1). All certificates of a listener
    /// share the same rules for clients, so this bypasses no rule. A connection without a server name may serve
    /// any host.
    pub(super) fn allow(&self, server_name: Option<&str>, host: &str) -> bool {
        let Some(server_name) = server_name else {
            return true;
        };
        let host = without_port(host);
        host.eq_ignore_ascii_case(server_name) || self.has_certificate_for(&host.to_ascii_lowercase())
    }
}

/// A host without its port and without the trailing dot of a fully qualified name. A server name has neither.
fn without_port(host: &str) -> &str {
    let port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, number)) if port(number) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::development;

    fn certificate(names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        development::certificate(&names).unwrap().1
    }

    fn selected_name<'a>(store: &CertificateStore, name: Option<&str>, of: &'a [Certificate]) -> Option<&'a str> {
        let key = store.candidates(name).first()?;
        of.iter().find(|c| Arc::ptr_eq(&c.key, key)).and_then(|c| c.names().first()).map(String::as_str)
    }

    #[test]
    fn exact_name_takes_precedence_over_wildcard_and_first() {
        let all = [certificate(&["first.test"]), certificate(&["*.example.test"]), certificate(&["www.example.test"])];
        let store = CertificateStore::new(&all);
        assert_eq!(selected_name(&store, Some("www.example.test"), &all), Some("www.example.test"));
        assert_eq!(selected_name(&store, Some("WWW.Example.TEST"), &all), Some("www.example.test"));
        assert_eq!(selected_name(&store, Some("api.example.test"), &all), Some("*.example.test"));
        assert_eq!(
            selected_name(&store, Some("a.b.example.test"), &all),
            Some("first.test"),
            "a wildcard matches one label"
        );
        assert_eq!(selected_name(&store, Some("other.test"), &all), Some("first.test"));
        assert_eq!(selected_name(&store, None, &all), Some("first.test"));
    }

    #[test]
    fn connection_serves_its_server_name_and_names_with_a_certificate() {
        let names = CertificateNames::of(&[certificate(&["a.test", "b.test"]), certificate(&["*.c.test"])]);
        for (server_name, host, allowed) in [
            (Some("a.test"), "a.test", true),
            (Some("a.test"), "A.Test:8443", true),
            (Some("a.test"), "a.test.", true),
            (Some("a.test"), "a.test.:443", true),
            (Some("a.test"), "b.test", true),
            (Some("b.test"), "x.C.test:1", true),
            (Some("a.test"), "c.test", false),
            (Some("a.test"), "x.y.c.test", false),
            (Some("a.test"), "other.test", false),
            (Some("a.test"), "a.test.evil.test", false),
            (Some("a.test"), "a.test:x", false),
            (Some("a.test"), "a.test:80:90", false),
            (Some("a.test"), "", false),
            (Some("a.test"), "[::1]:443", false),
            (Some("unknown.test"), "unknown.test", true),
            (Some("unknown.test"), "a.test", true),
            (None, "a.test", true),
            (None, "192.0.2.1:443", true),
        ] {
            assert_eq!(names.allow(server_name, host), allowed, "{server_name:?} {host}");
        }
    }
}
