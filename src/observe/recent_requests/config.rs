//! The `recent_requests:` block: how many requests are recorded, and which headers.

use std::sync::Arc;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};

/// Configuration of recent requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The number of recorded requests; 0 for none.
    pub count: usize,
    /// Headers whose values are recorded as well: those that `sticky` uses.
    pub headers: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { count: 50_000, headers: Vec::new() }
    }
}

/// The largest number of requests: more would take too long to replay.
const COUNT_MAX: usize = 1_000_000;
/// The largest number of headers, whose values are copied for every request.
pub(super) const HEADERS_MAX: usize = 8;

/// Headers with credentials. Recording them gives a warning.
const SECRETS: [HeaderName; 4] =
    [http::header::AUTHORIZATION, http::header::PROXY_AUTHORIZATION, http::header::COOKIE, X_API_KEY];
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The checked block. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The number of recorded requests.
    pub count: usize,
    /// The headers whose values are recorded.
    pub headers: Arc<[HeaderName]>,
}

impl Config {
    /// Checks the block.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Spec {
        if self.count > COUNT_MAX {
            let problem = format!("{} is more than {COUNT_MAX}", self.count);
            faults.add(place.key("count"), problem, "lower it; fewer requests are enough to evaluate a change");
        }
        let place = place.key("headers");
        if self.headers.len() > HEADERS_MAX {
            let problem = format!("{} fields are more than {HEADERS_MAX}", self.headers.len());
            faults.add(place.clone(), problem, "list only those that `sticky` of a route uses");
        }
        let mut headers = Vec::with_capacity(self.headers.len());
        for (index, name) in self.headers.iter().enumerate() {
            match HeaderName::from_bytes(name.as_bytes()) {
                Err(_) => {
                    faults.add(place.index(index), format!("`{name}` is not a header name"), "write for example X-User")
                }
                Ok(name) if headers.contains(&name) => {
                    faults.add(place.index(index), format!("`{name}` is listed twice"), "remove one of the two");
                }
                Ok(name) => headers.push(name),
            }
        }
        Spec { count: self.count, headers: headers.into() }
    }

    /// The headers with credentials, by index.
    pub fn secrets(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_secret = |name: &str| SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_str()));
        self.headers.iter().map(String::as_str).enumerate().filter(move |(_, name)| is_secret(name))
    }
}
