//! The `admin:` block: the control API at TCP addresses.
//!
//! - [`role`]: what a caller may do. [`token`]: token files.

pub mod role;
pub mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

pub use role::Role;
pub use token::{Token, TokenDigest};

use crate::base::fault::{Faults, Place};
use crate::base::file_stamps::Stamps;
use crate::tls::client_auth;
use crate::tls::config::Protocol;
use crate::tls::{self, Settings};

/// The `admin:` block.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listen addresses: IP address and port.
    pub listen: Vec<String>,
    /// TLS; without it only loopback addresses are allowed.
    #[serde(default)]
    pub tls: Option<tls::Config>,
    /// Client certificates.
    #[serde(default)]
    pub clients: Option<ClientsConfig>,
    /// Tokens.
    #[serde(default)]
    pub tokens: Vec<TokenConfig>,
    /// Further names in `Host`, besides IP addresses, `localhost` and the names of the certificates.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// The `clients:` block of `admin`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientsConfig {
    /// PEM file with the authorities that sign client certificates.
    pub ca: PathBuf,
    /// PEM files with revocation lists.
    #[serde(default)]
    pub crl: Vec<PathBuf>,
    /// The role of every certificate; without it only those in `roles` have one.
    #[serde(default)]
    pub role: Option<Role>,
    /// Roles by the name of a certificate: its common name, or a DNS name, e-mail address or URI. The highest applies.
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// Its name in the log.
    pub name: String,
    /// The file that contains it.
    pub file: PathBuf,
    /// The role of its callers.
    pub role: Role,
}

/// The checked `admin:` block.
pub struct Spec {
    /// The listen addresses; at least one.
    pub listen: Vec<SocketAddr>,
    /// The TLS settings; `None` for plain HTTP.
    pub tls: Option<Settings>,
    /// Who may call.
    pub access: Access,
}

/// Who may call the API over TCP. The default is no caller.
#[derive(Clone, Default)]
pub struct Access {
    /// The tokens.
    pub tokens: Vec<Token>,
    /// The role of certificates that are not in `roles`.
    pub role: Option<Role>,
    /// Roles by the name of a certificate.
    pub roles: BTreeMap<String, Role>,
    /// Further names in `Host`, in lower case.
    pub hosts: BTreeSet<String>,
    /// The state of the token files before they were read.
    pub stamps: Stamps,
}

impl Config {
    /// Whether both need the same sockets and the same TLS. Everything else applies without a new process.
    #[must_use]
    pub fn has_same_sockets(&self, other: &Self) -> bool {
        let authorities = |config: &Self| config.clients.as_ref().map(|it| (it.ca.clone(), it.crl.clone()));
        self.listen == other.listen
            && self.tls == other.tls
            && authorities(self) == authorities(other)
            && self.tokens.is_empty() == other.tokens.is_empty()
    }

    /// Checks the block and reads its files. `None` if a part is faulty.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        let listen = self.check_listen(&place.key("listen"), faults);
        self.check_authentication(place, faults);
        let tls = self.check_tls(place, faults);
        let stamps = Stamps::of(self.tokens.iter().map(|token| token.file.clone()));
        let access = Access {
            tokens: self.check_tokens(&place.key("tokens"), faults),
            role: self.clients.as_ref().and_then(|clients| clients.role),
            roles: self.clients.as_ref().map(|clients| clients.roles.clone()).unwrap_or_default(),
            hosts: self.check_hosts(&place.key("hosts"), faults),
            stamps,
        };
        // Faulty TLS must not become plain HTTP; the faults prevent its use.
        (tls.is_some() == self.tls.is_some()).then_some(Spec { listen, tls, access })
    }

    fn check_listen(&self, place: &Place, faults: &mut Faults) -> Vec<SocketAddr> {
        const HINT: &str = "write for example 127.0.0.1:9443";
        if self.listen.is_empty() {
            faults.add(place.clone(), "there is no address", HINT);
        }
        let mut addresses = Vec::with_capacity(self.listen.len());
        for (index, text) in self.listen.iter().enumerate() {
            let place = place.index(index);
            let Ok(address) = text.parse::<SocketAddr>() else {
                faults.add(place, format!("`{text}` is not an IP address with a port"), HINT);
                continue;
            };
            if self.tls.is_none() && !address.ip().to_canonical().is_loopback() {
                let problem =
                    format!("calls to {address} could be read and changed on their way, because `tls` is missing");
                faults.add(place.clone(), problem, "add `tls`, or listen at 127.0.0.1");
            }
            if addresses.contains(&address) {
                faults.add(place, format!("{address} is listed twice"), "remove one of the two");
            }
            addresses.push(address);
        }
        addresses
    }

    fn check_authentication(&self, place: &Place, faults: &mut Faults) {
        if self.tokens.is_empty() && self.clients.is_none() {
            let hint = "add `tokens: [{ name: deploy, file: deploy.token, role: operate }]`, or `clients` with `tls`";
            faults.add(place.clone(), "no caller could authenticate: there are neither `tokens` nor `clients`", hint);
        }
        let Some(clients) = &self.clients else { return };
        let place = place.key("clients");
        if self.tls.is_none() {
            faults.add(place.clone(), "client certificates need TLS", "add `tls`");
        }
        if clients.role.is_none() && clients.roles.is_empty() {
            let hint = "add `role: read` for every certificate, or `roles: { NAME: operate }`";
            faults.add(place, "no certificate would have a role", hint);
        }
    }

    /// TLS with the client certificates of `clients`.
    fn check_tls(&self, place: &Place, faults: &mut Faults) -> Option<Settings> {
        let mut tls = self.tls.clone()?;
        let at = place.key("tls");
        if tls.client_auth.is_some() {
            faults.add(
                at.key("client_auth"),
                "client certificates of `admin` are in `clients`",
                "move `ca` and `crl` there",
            );
            return None;
        }
        if !tls.alpn.contains(&Protocol::Http1) {
            faults.add(at.key("alpn"), "the commands of l7lb use HTTP/1.1", "add http/1.1, or remove the key");
        }
        let mode = if self.tokens.is_empty() { client_auth::Mode::Required } else { client_auth::Mode::Optional };
        tls.client_auth = self.clients.as_ref().map(|clients| client_auth::Config {
            mode,
            ca: clients.ca.clone(),
            crl: clients.crl.clone(),
        });
        tls.check_with(&at, &place.key("clients"), faults)
    }

    fn check_tokens(&self, place: &Place, faults: &mut Faults) -> Vec<Token> {
        let mut tokens: Vec<Token> = Vec::with_capacity(self.tokens.len());
        for (index, TokenConfig { name, file, role }) in self.tokens.iter().enumerate() {
            let place = place.index(index);
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                let hint = "write a name of letters, digits, `-`, `_` and `.`";
                faults.add(place.key("name"), format!("`{name}` is not a name of a token"), hint);
            }
            if self.tokens.iter().take(index).any(|before| before.name == *name) {
                faults.add(place.key("name"), format!("`{name}` is listed twice"), "give each token its own name");
            }
            match token::read(file) {
                Ok(digest) => match tokens.iter().find(|before| before.is(&digest)) {
                    Some(before) => {
                        let problem = format!("contains the same token as `{}`", before.name);
                        faults.add(place.key("file"), problem, "make another one with `openssl rand -hex 32`");
                    }
                    None => tokens.push(Token { name: name.clone(), role: *role, file: file.clone(), digest }),
                },
                Err((problem, hint)) => faults.add(place.key("file"), problem, hint),
            }
        }
        tokens
    }

    fn check_hosts(&self, place: &Place, faults: &mut Faults) -> BTreeSet<String> {
        for (index, host) in self.hosts.iter().enumerate() {
            if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                let hint = "write a name without a port, such as lb.example.com";
                faults.add(place.index(index), format!("`{host}` is not a host name"), hint);
            }
        }
        self.hosts.iter().map(|host| host.to_ascii_lowercase()).collect()
    }
}

impl Access {
    /// The token that was presented. Every token is compared, so the time does not depend on which one it is.
    #[must_use]
    pub fn token(&self, presented: &str) -> Option<&Token> {
        let presented = TokenDigest::of(presented);
        self.tokens.iter().fold(None, |found, token| if token.is(&presented) { Some(token) } else { found })
    }

    /// The role of a verified certificate with these names.
    #[must_use]
    pub fn role_of_certificate(&self, names: &[String]) -> Option<Role> {
        names.iter().filter_map(|name| self.roles.get(name).copied()).max().or(self.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_has_the_highest_role_of_its_names_and_the_default_without_one() {
        let roles = [("a".to_owned(), Role::Operate), ("b".to_owned(), Role::Read), ("c".to_owned(), Role::Admin)];
        let mut access = Access { roles: roles.into(), ..Access::default() };
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(access.role_of_certificate(&names(&["b", "a"])), Some(Role::Operate));
        assert_eq!(access.role_of_certificate(&names(&["A", "other"])), None);
        access.role = Some(Role::Admin);
        assert_eq!(access.role_of_certificate(&names(&["b"])), Some(Role::Read), "a name overrides the default");
        assert_eq!(access.role_of_certificate(&[]), Some(Role::Admin));
    }
}
