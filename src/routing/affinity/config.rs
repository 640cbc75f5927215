//! The `sticky:` block of a route: as written, and checked.

use std::path::PathBuf;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::ticket::{Own, Tickets};
use super::{CookieSpec, Means, Secure, Source, Sticky};
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;

/// The `sticky:` block, as written: either `cookie`, or `by`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A cookie of our own.
    #[serde(default)]
    pub cookie: Option<Cookie>,
    /// A file of keys that seal it; a random one of this process unless told.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// What of the client's is hashed.
    #[serde(default)]
    pub by: Option<By>,
    /// The name of the cookie or header that is hashed.
    #[serde(default)]
    pub name: Option<String>,
    /// What sticks.
    #[serde(default)]
    pub keep: Keep,
}

/// What is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A cookie of the application's.
    Cookie,
    /// A header field.
    Header,
    /// The client's address.
    ClientIp,
}

/// What sticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The pool and the backend.
    #[default]
    Backend,
    /// Only which of a route's pools; the pool balances.
    Pool,
}

/// The cookie that the balancer sets, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// How long a client keeps it without coming back.
    pub lifetime: Period,
    /// The paths that it is sent for.
    pub path: String,
    /// Whether other sites' requests bring it.
    pub same_site: SameSite,
    /// Whether it is sent over TLS only.
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
    /// Only this site's own requests.
    Strict,
    /// Also when a link leads here.
    #[default]
    Lax,
    /// Always, over TLS.
    None,
}

impl Config {
    /// Proves the block consistent, and reads its keys; `own` seals where no file is named.
    pub fn check(&self, own: &Own, place: &Place, faults: &mut Faults) -> Option<Sticky> {
        let means = match (&self.cookie, self.by) {
            (Some(cookie), None) => {
                if self.name.is_some() {
                    faults.add(place.key("name"), "a cookie of ours has its name in `cookie`", "move it there");
                }
                self.ticket(cookie, own, place, faults)
            }
            (None, Some(by)) => {
                if self.key.is_some() {
                    faults.add(place.key("key"), "only a cookie of ours is sealed with a key", "remove it");
                }
                self.source(by, place, faults).map(Means::Hash)
            }
            (Some(_), Some(_)) => {
                faults.add(place.key("by"), "`cookie` and `by` are two ways to stick", "remove one of them");
                None
            }
            (None, None) => {
                let hint = "write `cookie: {}` for a cookie of ours, or `by: cookie`, `header` or `client_ip`";
                faults.add(place.clone(), "nothing says what sticks", hint);
                None
            }
        };
        means.map(|means| Sticky { keep: self.keep, means, written: self.clone() })
    }

    fn ticket(&self, cookie: &Cookie, own: &Own, place: &Place, faults: &mut Faults) -> Option<Means> {
        cookie.check(&place.key("cookie"), faults);
        let tickets = match &self.key {
            None => Tickets::own(&cookie.name, own),
            Some(path) => Tickets::read(&cookie.name, path).map_err(|problem| format!("{}: {problem}", path.display())),
        };
        let hint = "give a file with one key on each line, as `openssl rand -base64 32` makes them; the first one \
                    seals new cookies";
        let tickets = tickets.map_err(|problem| faults.add(place.key("key"), problem, hint)).ok()?;
        Some(Means::Ticket(CookieSpec {
            name: cookie.name.clone(),
            lifetime: cookie.lifetime.0,
            attributes: cookie.attributes(),
            secure: cookie.secure(),
            tickets,
        }))
    }

    fn source(&self, by: By, place: &Place, faults: &mut Faults) -> Option<Source> {
        let place = place.key("name");
        match (by, &self.name) {
            (By::ClientIp, None) => Some(Source::ClientIp),
            (By::ClientIp, Some(_)) => {
                faults.add(place, "an address has no name", "remove it");
                None
            }
            (By::Cookie | By::Header, None) => {
                faults.add(place, "the key `name` is missing", "add the name of the cookie or header");
                None
            }
            (By::Cookie, Some(name)) => {
                check_name(name, place, faults);
                Some(Source::Cookie(name.clone()))
            }
            (By::Header, Some(name)) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Some(Source::Header(name)),
                Err(_) => {
                    faults.add(place, format!("`{name}` is no name of a header"), "write for example x-user");
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
            faults.add(place.key("lifetime"), "must be a second at least", "write for example 1h");
        }
        let plain = self.path.bytes().all(|b| b.is_ascii_graphic() && b != b';');
        if !self.path.starts_with('/') || !plain {
            faults.add(place.key("path"), format!("`{}` is no path of a cookie", self.path), "write for example /");
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

/// A cookie's name is a token, as a header's is (RFC 6265 §4.1.1), but its case matters.
fn check_name(name: &str, place: Place, faults: &mut Faults) {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        faults.add(place, format!("`{name}` is no name of a cookie"), "write letters, digits, - and _");
    }
}
