//! `access`: which clients may make a request, by network, client certificate and country.
//!
//! The first rule that a client matches decides. The same rules, by network only, apply to connections at a listener.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{Configuration, Surroundings};
use super::countries::{Countries, Country, CountryFiles};
use super::watched_file::{Watched, WatchedFile};
use super::{Facts, Filter, Request, Step};
use crate::base::fault::{Faults, Place};
use crate::http::access_rules::{AddressRules, Verdict, contains};
use crate::http::client_address::canonical;
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::tls::ClientIdentity;

/// Configuration of the filter, and of the `access` block of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The rules; the first one that a client matches decides.
    pub rules: Vec<RuleConfig>,
    /// What applies to a client that no rule matches; `deny` by default.
    pub default: Otherwise,
    /// The file with the countries of addresses, in the MaxMind DB format. It is read again when it changes.
    pub country_file: Option<std::path::PathBuf>,
}

/// One rule: either `allow` or `deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// The clients that may continue.
    pub allow: Option<ClientsConfig>,
    /// The clients that get 403.
    pub deny: Option<ClientsConfig>,
}

/// Clients: those that match every key that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientsConfig {
    /// The client's address is in one of these networks.
    #[schemars(with = "Vec<String>")]
    pub networks: Vec<IpNet>,
    /// The country of the client's address is one of these.
    pub countries: Vec<String>,
    /// The subject of the client certificate is one of these, in the format of RFC 4514, such as `CN=alice,O=Example`.
    pub subjects: Vec<String>,
    /// The SHA-256 fingerprint of the client certificate is one of these, in hexadecimal digits.
    pub fingerprints: Vec<String>,
}

/// What applies to a client that no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// It may continue.
    Allow,
    /// It gets 403.
    #[default]
    Deny,
}

impl Otherwise {
    fn verdict(self) -> Verdict {
        match self {
            Self::Allow => Verdict::Allow,
            Self::Deny => Verdict::Deny,
        }
    }
}

/// The length of a fingerprint in hexadecimal digits.
const FINGERPRINT_DIGITS: usize = 64;

impl Config {
    /// The rules in order, each with its verdict, its clients and its place.
    fn rules<'a>(&'a self, place: &Place, faults: &mut Faults) -> Vec<(Verdict, &'a ClientsConfig, Place)> {
        let mut rules = Vec::with_capacity(self.rules.len());
        for (index, rule) in self.rules.iter().enumerate() {
            let place = place.key("rules").index(index);
            match (&rule.allow, &rule.deny) {
                (Some(clients), None) => rules.push((Verdict::Allow, clients, place.key("allow"))),
                (None, Some(clients)) => rules.push((Verdict::Deny, clients, place.key("deny"))),
                (None, None) => {
                    faults.add(
                        place,
                        "the rule has neither `allow` nor `deny`",
                        "write `allow: { networks: 10.0.0.0/8 }`",
                    );
                }
                (Some(_), Some(_)) => {
                    faults.add(place.key("deny"), "a rule has either `allow` or `deny`", "make it a rule of its own");
                }
            }
        }
        if self.rules.is_empty() {
            faults.add(place.clone(), "there is no rule", "write `rules: [{ allow: { networks: 10.0.0.0/8 } }]`");
        } else if rules.len() == self.rules.len()
            && rules.iter().all(|(verdict, _, _)| *verdict == self.default.verdict())
        {
            let (problem, hint) = match self.default {
                Otherwise::Deny => ("every client is denied", "add a rule with `allow`, or write `default: allow`"),
                Otherwise::Allow => ("every client is allowed", "add a rule with `deny`, or remove `default`"),
            };
            faults.add(place.clone(), problem, hint);
        }
        rules
    }

    /// The rules for connections at a listener, where only networks are known.
    pub fn check_for_listener(&self, place: &Place, faults: &mut Faults) -> AddressRules {
        let mut rules = Vec::with_capacity(self.rules.len());
        for (verdict, clients, place) in self.rules(place, faults) {
            let others = [
                ("countries", clients.countries.is_empty()),
                ("subjects", clients.subjects.is_empty()),
                ("fingerprints", clients.fingerprints.is_empty()),
            ];
            for (key, _) in others.iter().filter(|(_, is_empty)| !is_empty) {
                let problem = "connections are checked by network only";
                faults.add(place.key(key), problem, "move the rule to a filter: `filters: [{ access: … }]`");
            }
            if clients.networks.is_empty() {
                faults.add(place.clone(), "there is no network", "write for example `networks: 10.0.0.0/8`");
            }
            rules.push((verdict, clients.networks.clone()));
        }
        if self.country_file.is_some() {
            let problem = "connections are checked by network only";
            faults.add(place.key("country_file"), problem, "remove it");
        }
        AddressRules::new(rules, self.default.verdict())
    }
}

impl ClientsConfig {
    fn check(&self, place: &Place, faults: &mut Faults) -> Clients {
        if *self == Self::default() {
            faults.add(place.clone(), "the rule has no clients", "write for example `networks: 10.0.0.0/8`");
        }
        let countries = self.countries.iter().enumerate().filter_map(|(index, code)| {
            code.parse()
                .inspect_err(|()| {
                    let problem = format!("`{code}` is not the code of a country");
                    faults.add(place.key("countries").index(index), problem, "write two capital letters, such as DE");
                })
                .ok()
        });
        let countries = countries.collect();
        let fingerprints = self.fingerprints.iter().enumerate().filter_map(|(index, text)| {
            let digits = text.replace(':', "").to_ascii_lowercase();
            if digits.len() != FINGERPRINT_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let problem = format!("`{text}` is not a SHA-256 fingerprint");
                let hint = "write 64 hexadecimal digits, with or without colons";
                faults.add(place.key("fingerprints").index(index), problem, hint);
                return None;
            }
            HeaderValue::from_str(&digits).ok()
        });
        let fingerprints = fingerprints.collect();
        let subjects = self.subjects.iter().enumerate().filter_map(|(index, text)| {
            let subject = HeaderValue::from_str(text).ok().filter(|_| text.contains('='));
            if subject.is_none() {
                let problem = format!("`{text}` is not a subject");
                let hint = "write it in the format of RFC 4514, such as CN=alice,O=Example";
                faults.add(place.key("subjects").index(index), problem, hint);
            }
            subject
        });
        Clients { networks: self.networks.clone(), countries, subjects: subjects.collect(), fingerprints }
    }
}

impl Configuration for Config {
    fn check(&self, place: &Place, around: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        let rules = self.rules(place, faults);
        let rules: Vec<Rule> = rules
            .into_iter()
            .map(|(verdict, clients, place)| Rule { verdict, clients: clients.check(&place, faults) })
            .collect();
        let needs_countries = rules.iter().any(|rule| !rule.clients.countries.is_empty());
        let place = place.key("country_file");
        let countries = match &self.country_file {
            Some(file) if needs_countries => {
                let own = CountryFiles::default();
                match around.country_files.unwrap_or(&own).open(file) {
                    Ok(countries) => Some(countries),
                    Err(reason) => {
                        faults.add(place, reason, "give a file such as GeoLite2-Country.mmdb");
                        None
                    }
                }
            }
            Some(_) => {
                faults.add(place, "no rule has `countries`", "remove it");
                None
            }
            None if needs_countries => {
                faults.add(place, "rules have `countries`", "give a file such as GeoLite2-Country.mmdb");
                None
            }
            None => None,
        };
        Some(Arc::new(Access { rules, default: self.default.verdict(), countries }))
    }
}

/// The checked clients of a rule.
#[derive(Clone, Debug)]
struct Clients {
    networks: Vec<IpNet>,
    countries: Vec<Country>,
    subjects: Vec<HeaderValue>,
    fingerprints: Vec<HeaderValue>,
}

impl Clients {
    /// Whether a client matches every key that is given. Without a client certificate, no subject and no fingerprint
    /// matches; without a country, no country does.
    fn matches(
        &self,
        address: IpAddr,
        certificate: Option<&ClientIdentity>,
        country: &mut impl FnMut() -> Option<Country>,
    ) -> bool {
        let has = |values: &[HeaderValue], value: fn(&ClientIdentity) -> &HeaderValue| {
            values.is_empty() || certificate.is_some_and(|identity| values.contains(value(identity)))
        };
        (self.networks.is_empty() || contains(&self.networks, address))
            && has(&self.subjects, |identity| &identity.subject)
            && has(&self.fingerprints, |identity| &identity.fingerprint)
            && (self.countries.is_empty() || country().is_some_and(|country| self.countries.contains(&country)))
    }
}

#[derive(Clone, Debug)]
struct Rule {
    verdict: Verdict,
    clients: Clients,
}

#[derive(Debug)]
struct Access {
    rules: Vec<Rule>,
    default: Verdict,
    countries: Option<Arc<Watched<Countries>>>,
}

impl Access {
    /// The verdict, and whether a rule decided.
    fn verdict(&self, facts: &Facts<'_>) -> (Verdict, bool) {
        let address = canonical(facts.client);
        let mut known = None;
        let mut country = || *known.get_or_insert_with(|| self.countries.as_ref()?.load().value.of(address));
        let rule = self.rules.iter().find(|rule| rule.clients.matches(address, facts.client_certificate, &mut country));
        rule.map_or((self.default, false), |rule| (rule.verdict, true))
    }
}

impl Filter for Access {
    fn request(&self, request: &mut Request<'_>) -> Step {
        let detail = match self.verdict(request.facts) {
            (Verdict::Allow, _) => return Step::Continue,
            (Verdict::Deny, true) => "denied by a rule",
            (Verdict::Deny, false) => "no rule allows the client",
        };
        Step::Reject(DetailedRejection { rejection: Rejection::AccessDenied, detail })
    }

    fn describe(&self) -> String {
        let (count, default) = (self.rules.len(), if self.default == Verdict::Deny { "deny" } else { "allow" });
        format!("{count} {}, otherwise {default}", if count == 1 { "rule" } else { "rules" })
    }

    fn files(&self) -> u64 {
        self.countries.as_ref().map_or(0, |countries| countries.hash())
    }

    fn watched(&self) -> Vec<Arc<dyn WatchedFile>> {
        self.countries.iter().map(|countries| Arc::clone(countries) as Arc<dyn WatchedFile>).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Changes;
    use crate::filter::variables::tests::{facts, request};

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/countries.mmdb");

    fn faults(config: &str) -> Vec<String> {
        let config: Config = serde_json::from_str(config).unwrap();
        let mut faults = Faults::default();
        config.check(&Place::root(), &Surroundings::default(), &mut faults);
        faults.into_vec().into_iter().map(|fault| format!("{}: {}", fault.place, fault.problem)).collect()
    }

    /// The detail of the rejection of a client; empty if it is allowed.
    fn rejection(config: &str, client: &str, certificate: Option<&ClientIdentity>) -> &'static str {
        let config: Config = serde_json::from_str(&config.replace("FILE", FILE)).unwrap();
        let mut faults = Faults::default();
        let filter = config.check(&Place::root(), &Surroundings::default(), &mut faults).unwrap();
        assert!(faults.is_empty(), "{faults:?}");
        let client = client.parse().unwrap();
        let facts = Facts { client, client_certificate: certificate, ..facts("a.test", "https") };
        let (header, mut changes) = (request("/", &[]), Changes::default());
        match filter.request(&mut Request { header: &header, facts: &facts, changes: &mut changes }) {
            Step::Continue => "",
            Step::Reject(DetailedRejection { rejection: Rejection::AccessDenied, detail }) => detail,
            _ => panic!("neither allowed nor denied"),
        }
    }

    #[test]
    fn first_rule_that_a_client_matches_decides() {
        let (denied, other) = ("denied by a rule", "no rule allows the client");
        let networks = r#"{"rules":[{"deny":{"networks":["10.1.0.0/16"]}},{"allow":{"networks":["10.0.0.0/8"]}}]}"#;
        let countries = r#"{"rules":[{"deny":{"countries":["US"]}},{"deny":{"countries":["DE"],"networks":["192.0.2.128/25"]}}],
            "default":"allow","country_file":"FILE"}"#;
        for (config, client, wanted) in [
            (networks, "10.0.0.1", ""),
            (networks, "::ffff:10.0.0.1", ""),
            (networks, "10.1.0.1", denied),
            (networks, "::ffff:10.1.0.1", denied),
            (networks, "192.0.2.1", other),
            (countries, "198.51.100.1", denied),
            (countries, "::ffff:198.51.100.1", denied),
            (countries, "192.0.2.1", ""),
            (countries, "192.0.2.200", denied),
            (countries, "10.0.0.1", ""),
        ] {
            assert_eq!(rejection(config, client, None), wanted, "{config} {client}");
        }
    }

    #[test]
    fn certificate_matches_by_subject_and_fingerprint_and_a_client_without_one_never_does() {
        let fingerprint = "ab".repeat(32);
        let alice = ClientIdentity::for_tests("CN=alice,O=Example", &fingerprint);
        let by_subject = r#"{"rules":[{"allow":{"subjects":["CN=alice,O=Example"]}}]}"#;
        let part = r#"{"rules":[{"allow":{"subjects":["CN=alice"]}}]}"#;
        let colons = format!(r#"{{"rules":[{{"allow":{{"fingerprints":["{}"]}}}}]}}"#, ["AB"; 32].join(":"));
        let other = format!(r#"{{"rules":[{{"allow":{{"fingerprints":["{}"]}}}}]}}"#, "ac".repeat(32));
        for (config, certificate, allowed) in [
            (by_subject, Some(&alice), true),
            (by_subject, None, false),
            (part, Some(&alice), false),
            (colons.as_str(), Some(&alice), true),
            (colons.as_str(), None, false),
            (other.as_str(), Some(&alice), false),
        ] {
            assert_eq!(rejection(config, "10.0.0.1", certificate).is_empty(), allowed, "{config}");
        }
    }

    #[test]
    fn rules_without_effect_are_faults() {
        for (config, wanted) in [
            ("{}", "(file): there is no rule"),
            (r#"{"rules":[{}]}"#, "rules[0]: the rule has neither `allow` nor `deny`"),
            (r#"{"rules":[{"deny":{"networks":["10.0.0.0/8"]}}]}"#, "(file): every client is denied"),
            (
                r#"{"rules":[{"allow":{"networks":["10.0.0.0/8"]}}],"default":"allow"}"#,
                "(file): every client is allowed",
            ),
            (r#"{"rules":[{"allow":{}}]}"#, "rules[0].allow: the rule has no clients"),
            (r#"{"rules":[{"allow":{"countries":["DE"]}}]}"#, "country_file: rules have `countries`"),
            (
                r#"{"rules":[{"allow":{"networks":["10.0.0.0/8"]}}],"country_file":"x"}"#,
                "country_file: no rule has `countries`",
            ),
        ] {
            assert!(faults(config).iter().any(|fault| fault == wanted), "{config}: {:?}", faults(config));
        }
    }
}
