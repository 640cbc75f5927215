//! The `recent_requests:` block: how many requests are remembered, and what of them.

use std::sync::Arc;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};

/// The block, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many requests are remembered; 0 for none.
    pub count: usize,
    /// Header fields whose values are remembered, too: those that `sticky` goes by.
    pub headers: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { count: 50_000, headers: Vec::new() }
    }
}

/// The most requests: more would take longer to replay than anybody waits.
const COUNT_MAX: usize = 1_000_000;
/// The most header fields, whose values are copied for every request.
pub(super) const HEADERS_MAX: usize = 8;

/// Fields that prove who somebody is. Where they are remembered, that should be meant.
const SECRETS: [HeaderName; 4] =
    [http::header::AUTHORIZATION, http::header::PROXY_AUTHORIZATION, http::header::COOKIE, X_API_KEY];
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The checked block. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// How many requests are remembered.
    pub count: usize,
    /// The fields whose values are remembered.
    pub headers: Arc<[HeaderName]>,
}

impl Config {
    /// Proves the block consistent.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Spec {
        if self.count > COUNT_MAX {
            let problem = format!("{} is more than {COUNT_MAX}", self.count);
            faults.add(
                place.key("count"),
                problem,
                "lower it: a change is compared with recent requests, not with all",
            );
        }
        let place = place.key("headers");
        if self.headers.len() > HEADERS_MAX {
            let problem = format!("{} fields are more than {HEADERS_MAX}", self.headers.len());
            faults.add(place.clone(), problem, "name only those that `sticky` of a route goes by");
        }
        let mut headers = Vec::with_capacity(self.headers.len());
        for (index, name) in self.headers.iter().enumerate() {
            match HeaderName::from_bytes(name.as_bytes()) {
                Err(_) => faults.add(
                    place.index(index),
                    format!("`{name}` is not a header's name"),
                    "write for example X-User",
                ),
                Ok(name) if headers.contains(&name) => {
                    faults.add(place.index(index), format!("`{name}` is named already"), "remove one of the two");
                }
                Ok(name) => headers.push(name),
            }
        }
        Spec { count: self.count, headers: headers.into() }
    }

    /// The fields that hold secrets, by their position.
    pub fn secrets(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_secret = |name: &str| SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_str()));
        self.headers.iter().map(String::as_str).enumerate().filter(move |(_, name)| is_secret(name))
    }
}
