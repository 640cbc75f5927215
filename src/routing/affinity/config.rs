//! The `sticky:` block of a route, and its checked form.

use std::path::PathBuf;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::cookie::{CookieKeys, ProcessKey};
use super::method::{AffinityMethod, CookieSpec, HashSource, Secure};
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;

/// Configuration of session affinity: either `cookie`, or `by`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// An affinity cookie set by l7lb.
    #[serde(default)]
    pub cookie: Option<Cookie>,
    /// File with keys that encrypt the cookie; default: a random key of the process.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The client value that is hashed.
    #[serde(default)]
    pub by: Option<HashSourceKind>,
    /// The name of the cookie or header that is hashed.
    #[serde(default)]
    pub name: Option<String>,
    /// The scope of affinity.
    #[serde(default)]
    pub keep: Scope,
}

/// The value that is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashSourceKind {
    /// A cookie of the application.
    Cookie,
    /// A header.
    Header,
    /// The client's address.
    ClientIp,
}

/// The scope of affinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The pool and the backend.
    #[default]
    Backend,
    /// The pool only; its policy balances.
    Pool,
}

/// The session affinity of a route.
#[derive(Debug)]
pub struct Affinity {
    /// Whether it applies to the backend, or only to the pool.
    pub scope: Scope,
    /// How the client is identified.
    pub method: AffinityMethod,
    /// The configuration, to detect changes in a reload.
    pub config: Config,
}

/// Configuration of the affinity cookie.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// How long a client keeps the cookie without further requests.
    pub lifetime: Period,
    /// The paths for which browsers send it.
    pub path: String,
    /// Whether browsers send it with requests from other sites.
    pub same_site: SameSite,
    /// Whether browsers send it over TLS only.
    pub secure: Secure,
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            name: "l7lb".to_owned(),
            lifetime: Period::seconds(3600),
            path: "/".to_owned(),
            same_site: SameSite::Lax,
            secure: Secure::Auto,
        }
    }
}

/// The attribute `SameSite`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Only with requests from the same site.
    Strict,
    /// Also when a link is followed.
    #[default]
    Lax,
    /// Always; requires TLS.
    None,
}

impl Config {
    /// Checks the block and reads its keys; without a key file `process_key` is used.
    pub fn check(&self, process_key: &ProcessKey, place: &Place, faults: &mut Faults) -> Option<Affinity> {
        let method = match (&self.cookie, self.by) {
            (Some(cookie), None) => {
                if self.name.is_some() {
                    faults.add(
                        place.key("name"),
                        "the name of the affinity cookie belongs in `cookie`",
                        "move the key there",
                    );
                }
                self.cookie(cookie, process_key, place, faults)
            }
            (None, Some(by)) => {
                if self.key.is_some() {
                    faults.add(place.key("key"), "`key` is only valid with `cookie`", "remove the key");
                }
                self.source(by, place, faults).map(AffinityMethod::Hash)
            }
            (Some(_), Some(_)) => {
                faults.add(place.key("by"), "`cookie` and `by` exclude each other", "remove one of them");
                None
            }
            (None, None) => {
                let hint = "write `cookie: {}` for an affinity cookie, or `by: cookie`, `header` or `client_ip`";
                faults.add(place.clone(), "neither `cookie` nor `by` is configured", hint);
                None
            }
        };
        method.map(|method| Affinity { scope: self.keep, method, config: self.clone() })
    }

    fn cookie(
        &self,
        cookie: &Cookie,
        process_key: &ProcessKey,
        place: &Place,
        faults: &mut Faults,
    ) -> Option<AffinityMethod> {
        cookie.check(&place.key("cookie"), faults);
        let keys = match &self.key {
            None => CookieKeys::of_process(&cookie.name, process_key),
            Some(path) => {
                CookieKeys::read(&cookie.name, path).map_err(|problem| format!("{}: {problem}", path.display()))
            }
        };
        let hint = "give a file with one key on each line, as created by `openssl rand -base64 32`; the first \
                    one encrypts new cookies";
        let keys = keys.map_err(|problem| faults.add(place.key("key"), problem, hint)).ok()?;
        Some(AffinityMethod::Cookie(CookieSpec {
            name: cookie.name.clone(),
            lifetime: cookie.lifetime.0,
            attributes: cookie.attributes(),
            secure: cookie.secure(),
            keys,
        }))
    }

    fn source(&self, by: HashSourceKind, place: &Place, faults: &mut Faults) -> Option<HashSource> {
        let place = place.key("name");
        match (by, &self.name) {
            (HashSourceKind::ClientIp, None) => Some(HashSource::ClientIp),
            (HashSourceKind::ClientIp, Some(_)) => {
                faults.add(place, "`name` is not valid with `by: client_ip`", "remove the key");
                None
            }
            (HashSourceKind::Cookie | HashSourceKind::Header, None) => {
                faults.add(place, "the key `name` is missing", "add the name of the cookie or header");
                None
            }
            (HashSourceKind::Cookie, Some(name)) => {
                check_name(name, place, faults);
                Some(HashSource::Cookie(name.clone()))
            }
            (HashSourceKind::Header, Some(name)) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Some(HashSource::Header(name)),
                Err(_) => {
                    faults.add(place, format!("`{name}` is not a header name"), "write for example x-user");
                    None
                }
            },
        }
    }
}

impl Cookie {
    fn check(&self, place: &Place, faults: &mut Faults) {
        check_name(&self.name, place.key("name"), faults);
        if self.lifetime < Period::seconds(1) {
            faults.add(place.key("lifetime"), "must be at least one second", "write for example 1h");
        }
        let plain = self.path.bytes().all(|b| b.is_ascii_graphic() && b != b';');
        if !self.path.starts_with('/') || !plain {
            faults.add(place.key("path"), format!("`{}` is not a valid cookie path", self.path), "write for example /");
        }
        if self.same_site == SameSite::None && self.secure == Secure::Never {
            let hint = "browsers drop such cookies: remove `secure`";
            faults.add(place.key("secure"), "`same_site: none` needs `Secure`", hint);
        }
    }

    fn secure(&self) -> Secure {
        if self.same_site == SameSite::None { Secure::Always } else { self.secure }
    }

    fn attributes(&self) -> String {
        let same_site = match self.same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        };
        format!("; Path={}; Max-Age={}; HttpOnly; SameSite={same_site}", self.path, self.lifetime.0.as_secs())
    }
}

/// A cookie name is a token, as a header name is (RFC 6265 §4.1.1), but case-sensitive.
fn check_name(name: &str, place: Place, faults: &mut Faults) {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        faults.add(place, format!("`{name}` is not a cookie name"), "write letters, digits, - and _");
    }
}
