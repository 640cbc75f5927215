//! `security_headers`: response fields that browsers use to protect a site, in two presets.
//!
//! The values follow the OWASP HTTP Security Response Headers Cheat Sheet. A field that the backend sends is kept, because it
//! knows its pages better. `Strict-Transport-Security` is a key of the listener.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{Configuration, Surroundings};
use super::{Filter, Response};
use crate::base::fault::{Faults, Place};

/// A preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Config {
    /// Fields that rarely break a site.
    Default,
    /// Also fields that restrict where content comes from; a site must be tested with them.
    Strict,
}

/// Fields of both presets.
const DEFAULT: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN")),
];

/// Fields of `strict`, which replace those of the same name.
const STRICT: [(HeaderName, HeaderValue); 7] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'self'; object-src 'none'; base-uri 'self'; frame-ancestors 'none'"),
    ),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

impl Configuration for Config {
    fn check(&self, _: &Place, _: &Surroundings<'_>, _: &mut Faults) -> Option<Arc<dyn Filter>> {
        let fields = match self {
            Self::Default => DEFAULT.to_vec(),
            Self::Strict => STRICT.to_vec(),
        };
        Some(Arc::new(SecurityHeaders { fields }))
    }
}

#[derive(Debug)]
struct SecurityHeaders {
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Filter for SecurityHeaders {
    fn response(&self, response: &mut Response<'_>) {
        for (name, value) in &self.fields {
            if !response.headers.contains_key(name) {
                response.headers.insert(name.clone(), value.clone());
            }
        }
    }

    fn describe(&self) -> String {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
        format!("response: sets if absent {}", names.join(", "))
    }
}
