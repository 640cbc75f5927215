//! `maintenance`: 503 for all clients, except those that are allowed.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{Configuration, Surroundings};
use super::respond::{self, BODY_MAX, media_type};
use super::{Filter, LocalResponse, Request, Step};
use crate::base::cause::Cause;
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;

/// Configuration of the filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Networks whose clients pass.
    #[schemars(with = "Vec<String>")]
    pub allow: Vec<IpNet>,
    /// The value of `Retry-After`, in whole seconds. 5m by default; 0s: the field is not sent.
    pub retry_after: Option<Period>,
    /// The body as text, at most 64 KiB.
    pub body: Option<String>,
    /// A file with the body, at most 64 KiB. It is read at the start and at a reload.
    pub file: Option<PathBuf>,
    /// The filter is active while this file exists. Without it, the filter is always active.
    pub switch_file: Option<PathBuf>,
}

const BODY: &str = "The service is under maintenance.\n";
const RETRY_AFTER: u64 = 300;

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        if self.body.is_some() && self.file.is_some() {
            faults.add(place.key("file"), "there is a `body`, too", "remove one of the two");
        }
        if self.switch_file.as_ref().is_some_and(|file| !file.is_absolute()) {
            let hint = "write it from the root, such as /run/l7lb/maintenance";
            faults.add(place.key("switch_file"), "the path is not absolute", hint);
        }
        let body = match (&self.body, &self.file) {
            (Some(text), _) => Bytes::from(text.clone()),
            (None, Some(file)) => respond::read(file, &place.key("file"), faults)?,
            (None, None) => Bytes::from_static(BODY.as_bytes()),
        };
        if body.len() > BODY_MAX {
            faults.add(place.key("body"), "the body is larger than 64 KiB", "shorten it");
        }
        let media_type = self.file.as_deref().map_or(respond::TEXT, media_type);
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let retry_after = self.retry_after.map_or(RETRY_AFTER, |period| period.0.as_secs());
        if retry_after > 0 {
            headers.insert(header::RETRY_AFTER, retry_after.into());
        }
        let (allow, switch) = (self.allow.clone(), self.switch_file.clone());
        Some(Arc::new(Maintenance { allow, headers, body, switch }))
    }
}

#[derive(Debug)]
struct Maintenance {
    allow: Vec<IpNet>,
    headers: HeaderMap,
    body: Bytes,
    switch: Option<PathBuf>,
}

impl Maintenance {
    /// Whether it is active. A file that cannot be examined does not exist.
    fn is_active(&self) -> bool {
        self.switch.as_ref().is_none_or(|file| file.exists())
    }
}

impl Filter for Maintenance {
    fn request(&self, request: &mut Request<'_>) -> Step {
        let client = request.facts.client.to_canonical();
        if self.allow.iter().any(|network| network.contains(&client)) || !self.is_active() {
            return Step::Continue;
        }
        let (headers, body) = (self.headers.clone(), self.body.clone());
        Step::Respond(Box::new(LocalResponse {
            cause: Cause::Maintenance,
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers,
            body,
        }))
    }

    fn describe(&self) -> String {
        let switch = match &self.switch {
            None => "always active".to_owned(),
            Some(file) if self.is_active() => format!("active, because {} exists", file.display()),
            Some(file) => format!("not active, because {} does not exist", file.display()),
        };
        format!("{switch}; {} networks pass", self.allow.len())
    }

    fn may_respond(&self) -> bool {
        true
    }

    fn files(&self) -> u64 {
        ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(&self.body)
    }
}
