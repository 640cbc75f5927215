//! The `health_check:` block of a pool.

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::pool::health::grpc::SERVICE_MAX;
use crate::pool::health::schedule::CheckTiming;

/// The type of a health check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// An HTTP request whose status code must be expected.
    Http,
    /// A TCP connection, followed by a TLS handshake if the pool uses TLS.
    #[default]
    Tcp,
    /// A call of the gRPC health service (`grpc.health.v1`), which must return SERVING.
    Grpc,
    /// No check: every backend counts as healthy.
    None,
}

/// The `health_check:` block of a pool.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The type of the check.
    pub r#type: Type,
    /// The path of the HTTP request.
    pub path: Option<String>,
    /// The Host header of the HTTP request; default: the server name of TLS, otherwise `localhost`.
    pub host: Option<String>,
    /// Further headers of the HTTP request.
    pub headers: std::collections::BTreeMap<String, String>,
    /// The status codes that pass, single or as ranges: `[200, "300-399"]`.
    pub status: Option<Vec<StatusRange>>,
    /// The service in a gRPC check; default: the server as a whole.
    pub service: Option<String>,
    /// Time between checks of a healthy backend.
    pub interval: Period,
    /// Time between checks of an unhealthy backend, and after any failed check.
    pub unhealthy_interval: Period,
    /// Timeout of one check.
    pub timeout: Period,
    /// Consecutive passed checks after which an unhealthy backend is up.
    pub rise: u32,
    /// Consecutive failed checks after which a healthy backend is down.
    pub fall: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            r#type: Type::default(),
            path: None,
            host: None,
            headers: std::collections::BTreeMap::new(),
            status: None,
            service: None,
            interval: Period::seconds(5),
            unhealthy_interval: Period::seconds(2),
            timeout: Period::seconds(2),
            rise: 2,
            fall: 3,
        }
    }
}

/// One status code or a range: `200` or `"200-299"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a status code such as 200, or a range such as 300-399")]
pub enum StatusRange {
    /// A single status code.
    One(u16),
    /// A range as text.
    Range(String),
}

impl StatusRange {
    fn check(&self) -> Option<RangeInclusive<u16>> {
        let range = match self {
            Self::One(status) => *status..=*status,
            Self::Range(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                first.trim().parse().ok()?..=last.trim().parse().ok()?
            }
        };
        (*range.start() >= 100 && *range.end() <= 599 && !range.is_empty()).then_some(range)
    }
}

/// The request of an HTTP check and the expected status codes.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRequest {
    /// Path and query.
    pub path: String,
    /// The Host header, if configured.
    pub host: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The status codes that pass.
    pub status: Vec<RangeInclusive<u16>>,
}

/// The checked request of a health check.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckRequest {
    /// An HTTP request.
    Http(HttpRequest),
    /// A TCP connection.
    Tcp,
    /// A gRPC call for a service; an empty name is the server as a whole.
    Grpc(String),
}

/// The checked health check.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The request.
    pub request: CheckRequest,
    /// Timeout of one check.
    pub timeout: Duration,
    /// The intervals and thresholds.
    pub timing: CheckTiming,
}

impl Config {
    /// Checks the block; `None` without a health check.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        if self.r#type != Type::Http {
            self.reject_http_keys(place, faults);
        }
        if self.r#type != Type::Grpc && self.service.is_some() {
            faults.add(place.key("service"), "only valid for a gRPC check", "add `type: grpc`, or remove the key");
        }
        for (key, period) in
            [("interval", self.interval), ("unhealthy_interval", self.unhealthy_interval), ("timeout", self.timeout)]
        {
            if period.0.is_zero() {
                faults.add(place.key(key), "must be greater than zero", "write for example 5s");
            }
        }
        for (key, count) in [("rise", self.rise), ("fall", self.fall)] {
            if count == 0 {
                faults.add(place.key(key), "must be at least 1", "write 1 to act on a single check");
            }
        }
        let request = match self.r#type {
            Type::None => return None,
            Type::Tcp => CheckRequest::Tcp,
            Type::Grpc => CheckRequest::Grpc(self.check_service(place, faults)),
            Type::Http => CheckRequest::Http(self.check_http(place, faults)),
        };
        let timing = CheckTiming {
            interval: self.interval.0,
            unhealthy_interval: self.unhealthy_interval.0,
            rise: self.rise,
            fall: self.fall,
        };
        Some(Spec { request, timeout: self.timeout.0, timing })
    }

    fn reject_http_keys(&self, place: &Place, faults: &mut Faults) {
        let written = [
            ("path", self.path.is_some()),
            ("host", self.host.is_some()),
            ("headers", !self.headers.is_empty()),
            ("status", self.status.is_some()),
        ];
        for (key, _) in written.into_iter().filter(|(_, written)| *written) {
            faults.add(place.key(key), "only valid for an HTTP check", "add `type: http`, or remove the key");
        }
    }

    fn check_service(&self, place: &Place, faults: &mut Faults) -> String {
        let service = self.service.clone().unwrap_or_default();
        if service.len() > SERVICE_MAX {
            let problem = format!("a name of {} bytes, more than {SERVICE_MAX}", service.len());
            faults.add(place.key("service"), problem, "write a service's full name, such as shop.v1.Orders");
        }
        service
    }

    fn check_http(&self, place: &Place, faults: &mut Faults) -> HttpRequest {
        let path = self.path.clone().unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
            faults.add(place.key("path"), format!("`{path}` is not a path"), "write for example /health");
        }
        let host = self.host.as_deref().map(|host| ("host", "host", host));
        let fields = self.headers.iter().map(|(name, value)| ("headers", name.as_str(), value.as_str()));
        for (key, name, value) in fields.chain(host) {
            if name.parse::<http::HeaderName>().is_err() || http::HeaderValue::from_str(value).is_err() {
                faults.add(place.key(key), format!("`{name}: {value}` is not a header field"), "use plain ASCII text");
            }
        }
        let expected = self.status.clone().unwrap_or_else(|| vec![StatusRange::Range("200-299".to_owned())]);
        let mut status = Vec::with_capacity(expected.len());
        for (index, range) in expected.iter().enumerate() {
            match range.check() {
                Some(range) => status.push(range),
                None => faults.add(
                    place.key("status").index(index),
                    "not a status code between 100 and 599, or a range of them",
                    "write for example 200 or \"200-299\"",
                ),
            }
        }
        let headers = self.headers.clone().into_iter().collect();
        HttpRequest { path, host: self.host.clone(), headers, status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> Result<Option<Spec>, Vec<String>> {
        let config: Config = serde_yaml::from_str(yaml).unwrap();
        let mut faults = Faults::default();
        let spec = config.check(&Place::root(), &mut faults);
        if faults.is_empty() { Ok(spec) } else { Err(faults.into_vec().iter().map(|f| f.place.to_string()).collect()) }
    }

    #[test]
    fn invalid_health_check_keys_are_reported() {
        let Some(Spec { request: CheckRequest::Http(http), .. }) =
            check("{type: http, path: /health, status: [200, 300-399]}").unwrap()
        else {
            panic!("an HTTP check was configured")
        };
        assert_eq!(http.status, [200..=200, 300..=399]);
        assert_eq!(check("{type: none}"), Ok(None));
        assert_eq!(check("{type: grpc, service: a.B}").unwrap().unwrap().request, CheckRequest::Grpc("a.B".to_owned()));
        assert_eq!(check("{type: http, service: a.B}"), Err(vec!["service".to_owned()]));
        assert_eq!(check(&format!("{{type: grpc, service: {}}}", "x".repeat(128))), Err(vec!["service".to_owned()]));
        assert_eq!(check("{type: grpc, path: /x, status: [200]}"), Err(vec!["path".to_owned(), "status".to_owned()]));
        assert_eq!(check("{type: tcp, path: /x}"), Err(vec!["path".to_owned()]));
        assert_eq!(
            check("{type: http, path: health, status: [99, 2xx, 299-200], rise: 0, timeout: 0s, headers: {'a b': c}}"),
            Err(["timeout", "rise", "path", "headers", "status[0]", "status[1]", "status[2]"]
                .map(str::to_owned)
                .to_vec())
        );
    }
}
