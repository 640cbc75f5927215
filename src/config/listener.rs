//! The `listeners:` list: listen addresses, with or without TLS.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::filter::config::Surroundings;
use crate::filter::{self, Chain};
use crate::http::access_rules::AddressRules;
use crate::http::client_address::TrustedProxies;
use crate::listener::address::ListenAddress;
use crate::listener::connection::{HealthPaths, Policy};
use crate::tls;

/// Configuration of a listener.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listen address: IP address and port, a port alone, `unix:` and a path, or a list of these.
    pub address: Addresses,
    /// TLS; without it the listener serves plain HTTP (HTTP/1.1, and HTTP/2 by prior knowledge).
    #[serde(default)]
    pub tls: Option<tls::Config>,
    /// The proxies in front of l7lb that start each connection with a PROXY protocol header.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Redirects every request to HTTPS at this port.
    #[serde(default)]
    pub redirect_to_https: Option<u16>,
    /// `Strict-Transport-Security` in every response.
    #[serde(default)]
    pub strict_transport_security: Option<StrictTransportSecurity>,
    /// Paths at which the listener reports the health of the balancer itself; without it there are none.
    #[serde(default)]
    pub health: Option<Health>,
    /// Which peers may connect; others are disconnected before TLS.
    #[serde(default)]
    pub access: Option<filter::access::Config>,
    /// Filters of the requests at this listener.
    #[serde(default)]
    pub filters: Vec<filter::config::Config>,
}

/// The `health:` block of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Liveness: always 200.
    #[serde(default)]
    pub live: Option<String>,
    /// Readiness: 200, or 503 once graceful shutdown has started.
    #[serde(default)]
    pub ready: Option<String>,
}

impl Health {
    fn check(&self, place: &Place, faults: &mut Faults) -> HealthPaths {
        if self.live.is_none() && self.ready.is_none() {
            faults.add(place.clone(), "neither `live` nor `ready` is set", "write for example `ready: /readyz`");
        }
        for (key, path) in [("live", &self.live), ("ready", &self.ready)] {
            let Some(path) = path else { continue };
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
            if !path.starts_with('/') || !path.bytes().all(plain) {
                let hint = "write a path of letters, digits and `-._~`, such as /readyz";
                faults.add(place.key(key), format!("`{path}` is not a plain path"), hint);
            }
        }
        if self.live.is_some() && self.live == self.ready {
            faults.add(place.key("ready"), "is also the path of `live`", "use different paths");
        }
        HealthPaths { live: self.live.clone(), ready: self.ready.clone() }
    }
}

/// The `proxy_protocol:` block of a listener.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// The networks of these proxies; a header from others is rejected as a bad request.
    #[schemars(with = "Vec<String>")]
    pub trusted: Vec<IpNet>,
}

/// The `strict_transport_security:` block (RFC 6797).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StrictTransportSecurity {
    /// How long browsers use HTTPS only.
    pub max_age: Period,
    /// Whether it applies to subdomains.
    #[serde(default)]
    pub include_subdomains: bool,
    /// Whether browsers may preload it.
    #[serde(default)]
    pub preload: bool,
}

impl StrictTransportSecurity {
    fn to_value(self) -> Option<HeaderValue> {
        let subdomains = if self.include_subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        HeaderValue::try_from(format!("max-age={}{subdomains}{preload}", self.max_age.0.as_secs())).ok()
    }
}

/// One address or several.
#[derive(Clone, Debug, PartialEq)]
pub struct Addresses(Vec<String>);

impl Addresses {
    /// The addresses as text, not checked.
    pub(super) fn texts(&self) -> &[String] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressesVisitor)
    }
}

impl JsonSchema for Addresses {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Addresses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": ["string", "integer"] },
                { "type": "array", "items": { "type": ["string", "integer"] }, "minItems": 1 },
            ]
        })
    }
}

struct AddressesVisitor;

impl<'de> Visitor<'de> for AddressesVisitor {
    type Value = Addresses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as 0.0.0.0:8080, or a list of them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Addresses, E> {
        Ok(Addresses(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Addresses, A::Error> {
        let mut addresses = Vec::new();
        while let Some(address) = list.next_element()? {
            addresses.push(address);
        }
        Ok(Addresses(addresses))
    }
}

/// One checked listener.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The listen addresses; at least one.
    pub addresses: Vec<ListenAddress>,
    /// The TLS settings; `None` for plain HTTP.
    pub tls: Option<tls::Settings>,
    /// The peers that send PROXY protocol headers.
    pub proxy_protocol: TrustedProxies,
    /// The settings for every request.
    pub policy: Arc<Policy>,
    /// Which peers may connect; `None`: all.
    pub access: Option<AddressRules>,
    /// The filters of its requests.
    pub filters: Chain,
}

impl Config {
    /// Checks the listener and reads its files.
    pub fn check(&self, place: &Place, around: &Surroundings<'_>, faults: &mut Faults) -> Spec {
        let tls = self.tls.as_ref().map(|tls| tls.check(&place.key("tls"), faults));
        self.check_policy(place, faults);
        let health = self.health.as_ref().map(|health| health.check(&place.key("health"), faults));
        let trusted = self.proxy_protocol.as_ref().map(|proxies| proxies.trusted.clone()).unwrap_or_default();
        if self.proxy_protocol.is_some() && trusted.is_empty() {
            faults.add(
                place.key("proxy_protocol").key("trusted"),
                "no network is trusted, so no header would be accepted",
                "give the networks of the proxies in front of l7lb, such as 10.0.0.0/8",
            );
        }
        Spec {
            addresses: self.check_addresses(&place.key("address"), faults),
            // Faulty TLS must not become plain HTTP; the faults prevent its use.
            tls: tls.flatten(),
            proxy_protocol: TrustedProxies::new(trusted),
            access: self.access.as_ref().map(|access| access.check_for_listener(&place.key("access"), faults)),
            filters: filter::config::check(&self.filters, &place.key("filters"), around, faults),
            policy: Arc::new(Policy {
                listener: self.address.0.first().map(String::as_str).unwrap_or_default().into(),
                redirect_to_https: self.redirect_to_https,
                strict_transport_security: self.strict_transport_security.and_then(StrictTransportSecurity::to_value),
                health: health.unwrap_or_default(),
            }),
        }
    }

    fn check_addresses(&self, place: &Place, faults: &mut Faults) -> Vec<ListenAddress> {
        let hint = "write for example 0.0.0.0:8080, [::]:8080 for IPv4 and IPv6, or unix:/run/l7lb/front.sock";
        if self.address.0.is_empty() {
            faults.add(place.clone(), "there is no address", hint);
        }
        let mut addresses = Vec::with_capacity(self.address.0.len());
        for (index, text) in self.address.0.iter().enumerate() {
            let place = if self.address.0.len() == 1 { place.clone() } else { place.index(index) };
            match text.parse() {
                Ok(address) => addresses.push(address),
                Err(problem) => faults.add(place, format!("`{text}` {problem}"), hint),
            }
        }
        addresses
    }

    fn check_policy(&self, place: &Place, faults: &mut Faults) {
        if self.redirect_to_https.is_some() && self.tls.is_some() {
            faults.add(
                place.key("redirect_to_https"),
                "this listener already uses TLS",
                "add it to the listener without TLS",
            );
        }
        if self.strict_transport_security.is_some() && self.tls.is_none() {
            faults.add(
                place.key("strict_transport_security"),
                "browsers ignore it without TLS (RFC 6797 §8.1)",
                "add it to the listener with `tls`",
            );
        }
    }
}
