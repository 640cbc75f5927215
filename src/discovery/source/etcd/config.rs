//! The `etcd:` block of a source: endpoints, prefix and credentials.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::tls::endpoint::Endpoint;
use crate::tls::service::{self, ServiceTls};

/// The port of etcd for clients.
const PORT: u16 = 2379;

/// Configuration of backends in etcd.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// URLs of the members, such as `http://10.0.0.2:2379`. They are used in turn until one works.
    pub endpoints: Vec<String>,
    /// The start of the keys, one key for each backend. Its last character separates it from the rest of a key.
    pub prefix: String,
    /// The user, if etcd requires one.
    #[serde(default)]
    pub user: Option<String>,
    /// File with the password, which is read for each new connection.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// TLS, for endpoints with https.
    #[serde(default)]
    pub tls: Option<service::Config>,
    /// The longest wait for a connection or a response.
    #[serde(default = "timeout")]
    pub timeout: Period,
}

/// Long enough for the election of a leader.
fn timeout() -> Period {
    Period(Duration::from_secs(2))
}

/// A user with the file of the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The file with the password.
    pub password_file: PathBuf,
}

/// A checked source.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The members; at least one.
    pub endpoints: Vec<Endpoint>,
    /// The start of the keys.
    pub prefix: String,
    /// The user, if there is one.
    pub credentials: Option<Credentials>,
    /// TLS for endpoints with https.
    pub tls: Option<ServiceTls>,
    /// The longest wait for a connection or a response.
    pub timeout: Duration,
}

impl Config {
    /// Checks the block. The password is read later.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        faults.unless_added(|faults| self.spec(place, faults))
    }

    fn spec(&self, place: &Place, faults: &mut Faults) -> Spec {
        let endpoints = self.check_endpoints(place, faults);
        if !self.prefix.ends_with(|last: char| last.is_ascii_punctuation()) {
            let problem =
                format!("`{}` does not end with a separator, so `{}2` has the same prefix", self.prefix, self.prefix);
            faults.add(place.key("prefix"), problem, "write for example /l7lb/api/");
        }
        let credentials = match (&self.user, &self.password_file) {
            (None, None) => None,
            (Some(user), Some(password_file)) => {
                Some(Credentials { user: user.clone(), password_file: password_file.clone() })
            }
            (Some(_), None) => {
                faults.add(place.key("user"), "the password is missing", "add `password_file: FILE`");
                None
            }
            (None, Some(_)) => {
                faults.add(place.key("password_file"), "the user is missing", "add `user: NAME`");
                None
            }
        };
        let tls = self.tls.as_ref().and_then(|tls| tls.check(&place.key("tls"), faults));
        if !(Duration::from_millis(100)..=Duration::from_secs(10)).contains(&self.timeout.0) {
            let problem = format!("{} is not between 100ms and 10s", self.timeout);
            faults.add(place.key("timeout"), problem, "write for example 2s");
        }
        Spec { endpoints, prefix: self.prefix.clone(), credentials, tls, timeout: self.timeout.0 }
    }

    fn check_endpoints(&self, place: &Place, faults: &mut Faults) -> Vec<Endpoint> {
        let place = place.key("endpoints");
        if self.endpoints.is_empty() {
            faults.add(place.clone(), "there is no endpoint", "write for example [http://127.0.0.1:2379]");
        }
        if self.tls.is_some() && !self.endpoints.iter().any(|text| text.starts_with("https:")) {
            faults.add(place.clone(), "`tls` has no effect without https", "write for example https://127.0.0.1:2379");
        }
        let mut endpoints = Vec::with_capacity(self.endpoints.len());
        for (index, text) in self.endpoints.iter().enumerate() {
            let place = place.index(index);
            match parse(text) {
                Err(problem) => faults.add(place, problem, "write for example http://127.0.0.1:2379"),
                Ok(endpoint) if endpoint.tls && self.tls.is_none() => {
                    faults.add(place, "the endpoint uses TLS, and `tls` is missing", "add `tls: { ca: FILE }`");
                }
                Ok(endpoint) => endpoints.push(endpoint),
            }
        }
        endpoints
    }
}

impl Spec {
    /// The first endpoint and the prefix.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}{}", self.endpoints.first().map(Endpoint::authority).unwrap_or_default(), self.prefix)
    }
}

/// Reads the URL of an endpoint. The message has no part of a password.
fn parse(text: &str) -> Result<Endpoint, String> {
    if text.contains('@') {
        return Err("an endpoint has no user; use `user` and `password_file`".to_owned());
    }
    match Endpoint::parse(text, |_| PORT)? {
        (endpoint, path) if path.is_empty() => Ok(endpoint),
        _ => Err(format!("`{text}` is not the URL of an endpoint")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_of_etcd_has_neither_a_path_nor_a_user() {
        assert_eq!(parse("https://etcd-1.internal/").unwrap().to_string(), "https://etcd-1.internal:2379");
        assert!(parse("http://a/v3").unwrap_err().contains("is not the URL"));
        assert!(!parse("http://root:secret@a:1").unwrap_err().contains("secret"));
    }
}
