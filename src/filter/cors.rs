//! `cors`: which pages of other origins may read responses (Fetch standard, `https://fetch.spec.whatwg.org/#http-cors-protocol`).
//!
//! Browsers enforce the rules. A preflight is responded to here, so backends need not know about CORS; the fields of a
//! backend are replaced. All fields are made once, except `Access-Control-Allow-Origin`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{Configuration, Surroundings};
use super::cors_origin::{Origin, Origins};
use super::{Filter, LocalResponse, Request, Response, Step};
use crate::base::cause::Cause;
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::http::fields::single;

/// Configuration of the filter.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The origins of pages, such as `https://app.example.com`; `https://*.example.com` for any one label, `*` for any
    /// origin.
    pub origins: Vec<String>,
    /// The methods that pages may use; `*` for any. Default: GET, HEAD and POST.
    pub methods: Option<Vec<String>>,
    /// The request header fields that pages may send besides those that are always allowed; `*` for any except
    /// Authorization.
    pub headers: Vec<String>,
    /// The response header fields that pages may read besides those that are always readable; `*` for any.
    pub expose: Vec<String>,
    /// Whether browsers send cookies and other credentials.
    pub credentials: bool,
    /// How long browsers remember the response to a preflight. Without it, most do for 5 seconds.
    pub max_age: Option<Period>,
}

/// The longest time for which any browser remembers a preflight, in seconds.
const MAX_AGE_SECONDS: u64 = 86_400;

const ANY: &str = "*";

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        let origins = self.check_origins(&place.key("origins"), faults);
        let methods = self.methods.clone().unwrap_or_else(|| ["GET", "HEAD", "POST"].map(str::to_owned).to_vec());
        let is_method = |name: &str| Method::from_bytes(name.as_bytes()).is_ok();
        let is_field = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok();
        let mut list = |key: &str, names: &[String], what: &str, is_valid: &dyn Fn(&str) -> bool| {
            let place = place.key(key);
            for (index, name) in names.iter().enumerate().filter(|(_, name)| *name != ANY && !is_valid(name)) {
                faults.add(place.index(index), format!("`{name}` is not a {what}"), format!("write a {what}"));
            }
            if self.credentials && names.iter().any(|name| name == ANY) {
                let problem = format!("with `credentials`, browsers do not read `*` in `{key}` as any");
                faults.add(place, problem, format!("list each {what}, or remove `credentials`"));
            }
            (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(", ")).ok()).flatten()
        };
        let methods = list("methods", &methods, "method", &is_method);
        let headers = list("headers", &self.headers, "header name", &is_field);
        let expose = list("expose", &self.expose, "header name", &is_field);
        let max_age = self.max_age.map(|age| age.0.as_secs());
        if max_age.is_some_and(|seconds| seconds > MAX_AGE_SECONDS) {
            faults.add(place.key("max_age"), "no browser remembers a preflight for so long", "write at most 24h");
        }
        let max_age = max_age.map(HeaderValue::from);
        Some(Arc::new(Cors { origins: origins?, methods, headers, expose, credentials: self.credentials, max_age }))
    }
}

impl Config {
    fn check_origins(&self, place: &Place, faults: &mut Faults) -> Option<Origins> {
        if self.origins.is_empty() {
            faults.add(place.clone(), "there is no origin", "write for example `origins: [https://app.example.com]`");
            return None;
        }
        let mut origins = Vec::with_capacity(self.origins.len());
        for (index, text) in self.origins.iter().enumerate() {
            match text.parse::<Origin>() {
                Ok(origin) if self.credentials && origin == Origin::Null => {
                    let problem = "any page can have the origin `null`, so none such may use `credentials`";
                    faults.add(place.index(index), problem, "remove `null` or `credentials`");
                }
                Ok(origin) => origins.push(origin),
                Err((problem, hint)) => faults.add(place.index(index), problem, hint),
            }
        }
        let is_any = origins.contains(&Origin::Any);
        if is_any && self.credentials {
            let problem = "with `credentials`, pages of any origin could act for the users of this site";
            faults.add(place.clone(), problem, "list the origins, or remove `credentials`");
        }
        if is_any && self.origins.len() > 1 {
            faults.add(place.clone(), "`*` is any origin, so the others have no effect", "remove `*` or the others");
        }
        Some(Origins::new(origins))
    }
}

/// The filter.
#[derive(Debug)]
struct Cors {
    origins: Origins,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<HeaderValue>,
}

/// Whether a browser asks if it may send a request: OPTIONS with Origin and the method of that request.
fn is_preflight(request: &RequestHeader) -> bool {
    request.method == Method::OPTIONS
        && request.headers.contains_key(header::ORIGIN)
        && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The origin of the page that sends the request; `None` if there is none or several.
fn origin_of(headers: &HeaderMap) -> Option<&HeaderValue> {
    single(headers, &header::ORIGIN)
}

/// The fields of the protocol, which only this filter sets.
const FIELDS: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

impl Cors {
    /// The value of Access-Control-Allow-Origin; `None` if the origin is not allowed.
    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        if self.origins.are_any() {
            return Some(HeaderValue::from_static(ANY));
        }
        origin.filter(|origin| self.origins.contain(origin.as_bytes())).cloned()
    }
}

/// Adds `name` to Vary, unless it is there.
fn vary(headers: &mut HeaderMap, name: &'static str) {
    let has = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|word| {
            let word = word.trim_ascii();
            word == ANY.as_bytes() || word.eq_ignore_ascii_case(name.as_bytes())
        })
    };
    if !headers.get_all(header::VARY).iter().any(has) {
        headers.append(header::VARY, HeaderValue::from_static(name));
    }
}

impl Filter for Cors {
    fn request(&self, request: &mut Request<'_>) -> Step {
        if !is_preflight(request.header) {
            return Step::Continue;
        }
        // The response half adds the fields.
        let (status, body) = match self.allowed(origin_of(request.fields())) {
            Some(_) => (StatusCode::NO_CONTENT, Bytes::new()),
            None => (StatusCode::FORBIDDEN, Bytes::from_static(b"The origin is not allowed.\n")),
        };
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        }
        Step::Respond(Box::new(LocalResponse { cause: Cause::Cors, status, headers, body }))
    }

    fn response(&self, response: &mut Response<'_>) {
        for name in &FIELDS {
            response.headers.remove(name);
        }
        if !self.origins.are_any() {
            // Also without Origin: a cache must not use this response for another origin.
            vary(response.headers, "Origin");
        }
        let request = &response.request.headers;
        if !request.contains_key(header::ORIGIN) {
            return;
        }
        let Some(origin) = self.allowed(origin_of(request)) else { return };
        let mut set = |name: HeaderName, value: Option<&HeaderValue>| {
            if let Some(value) = value {
                response.headers.insert(name, value.clone());
            }
        };
        set(header::ACCESS_CONTROL_ALLOW_ORIGIN, Some(&origin));
        let yes = HeaderValue::from_static("true");
        set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, self.credentials.then_some(&yes));
        if is_preflight(response.request) {
            set(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.as_ref());
            set(header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.as_ref());
            set(header::ACCESS_CONTROL_MAX_AGE, self.max_age.as_ref());
        } else {
            set(header::ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.as_ref());
        }
    }

    fn describe(&self) -> String {
        let text = |value: &Option<HeaderValue>| {
            value.as_ref().map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let credentials = if self.credentials { ", with credentials" } else { "" };
        format!("origins {}; methods {}{credentials}", self.origins, text(&self.methods))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Changes;
    use crate::filter::response::Source;
    use crate::filter::variables::tests::{answered, facts, request};

    fn filter(config: &str) -> Result<Arc<dyn Filter>, Vec<String>> {
        let config: Config = serde_json::from_str(config).unwrap();
        let mut faults = Faults::default();
        let filter = config.check(&Place::root(), &Surroundings::default(), &mut faults);
        let faults: Vec<String> =
            faults.into_vec().iter().map(|fault| format!("{}: {}", fault.place.as_str(), fault.problem)).collect();
        if faults.is_empty() { Ok(filter.unwrap()) } else { Err(faults) }
    }

    /// The status of a response by the filter, and the fields of the final response to a request.
    fn outcome(config: &str, method: &str, fields: &[(&'static str, &str)]) -> (Option<u16>, Vec<String>) {
        let filter = filter(config).unwrap();
        let mut header = request("/", fields);
        header.set_method(Method::from_bytes(method.as_bytes()).unwrap());
        let (facts, mut changes) = (facts("a.test", "https"), Changes::default());
        let step = filter.request(&mut Request { header: &header, facts: &facts, changes: &mut changes });
        let (status, headers, own) = match step {
            Step::Continue => {
                let ours = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "https://backend"), (header::VARY, "Accept")];
                let ours = ours.map(|(name, value)| (name, HeaderValue::from_static(value)));
                (StatusCode::OK, HeaderMap::from_iter(ours), None)
            }
            Step::Respond(local) => (local.status, local.headers, Some(local.status.as_u16())),
            _ => panic!("neither a response nor a pass"),
        };
        let source = own.map_or(Source::Backend, |_| Source::Filter(Cause::Cors));
        let (_, headers) = answered(filter.as_ref(), (&header, &facts), (status, headers), source);
        let text = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        let mut fields: Vec<String> = headers.iter().map(text).collect();
        fields.sort();
        (own, fields)
    }

    const LISTED: &str = r#"{"origins":["https://app.test","https://*.app.test"],"methods":["GET","PUT"],
        "headers":["X-Token"],"expose":["X-Total"],"credentials":true,"max_age":"10m"}"#;

    #[test]
    fn preflight_of_an_allowed_origin_gets_every_rule() {
        let preflight = [("origin", "https://app.test"), ("access-control-request-method", "DELETE")];
        let (status, fields) = outcome(LISTED, "OPTIONS", &preflight);
        assert_eq!(status, Some(204));
        let wanted = [
            "access-control-allow-credentials: true",
            "access-control-allow-headers: X-Token",
            "access-control-allow-methods: GET, PUT",
            "access-control-allow-origin: https://app.test",
            "access-control-max-age: 600",
            "vary: Origin",
        ];
        assert_eq!(fields, wanted);
        let preflight = [("origin", "https://evil.test"), ("access-control-request-method", "GET")];
        let refused =
            (Some(403), vec!["content-type: text/plain; charset=utf-8".to_owned(), "vary: Origin".to_owned()]);
        assert_eq!(outcome(LISTED, "OPTIONS", &preflight), refused);
        let several = [preflight[1], ("origin", "https://app.test"), ("origin", "https://evil.test")];
        assert_eq!(outcome(LISTED, "OPTIONS", &several), refused);
    }

    #[test]
    fn fields_of_the_backend_are_replaced_by_those_for_the_origin() {
        let vary = ["vary: Accept".to_owned(), "vary: Origin".to_owned()];
        let (status, fields) = outcome(LISTED, "GET", &[("origin", "https://x.app.test")]);
        let own = [
            "access-control-allow-credentials: true",
            "access-control-allow-origin: https://x.app.test",
            "access-control-expose-headers: X-Total",
        ];
        assert_eq!((status, &fields[..3], &fields[3..]), (None, &own.map(str::to_owned)[..], &vary[..]));
        for fields in [&[("origin", "https://evil.test")][..], &[], &[("origin", "null")]] {
            assert_eq!(outcome(LISTED, "GET", fields), (None, vary.to_vec()), "{fields:?}");
        }
        let (_, fields) = outcome(r#"{"origins":["*"]}"#, "GET", &[("origin", "https://evil.test")]);
        assert_eq!(fields, ["access-control-allow-origin: *", "vary: Accept"]);
    }

    #[test]
    fn options_request_that_is_no_preflight_passes() {
        let origin = ("origin", "https://app.test");
        for fields in [&[origin][..], &[("access-control-request-method", "GET")], &[]] {
            assert_eq!(outcome(LISTED, "OPTIONS", fields).0, None, "{fields:?}");
        }
        assert_eq!(outcome(LISTED, "POST", &[origin, ("access-control-request-method", "GET")]).0, None);
    }

    #[test]
    fn contradictions_are_faults() {
        for (config, wanted) in [
            (r#"{}"#, "origins: there is no origin"),
            (r#"{"origins":["*"],"credentials":true}"#, "origins: with `credentials`, pages of any origin could act"),
            (r#"{"origins":["*","https://a.test"]}"#, "origins: `*` is any origin, so the others have no effect"),
            (r#"{"origins":["null"],"credentials":true}"#, "origins[0]: any page can have the origin `null`"),
            (
                r#"{"origins":["https://a.test"],"credentials":true,"headers":["*"]}"#,
                "headers: with `credentials`, browsers do not read `*` in `headers` as any",
            ),
            (r#"{"origins":["https://a.test"],"methods":["G T"]}"#, "methods[0]: `G T` is not a method"),
            (r#"{"origins":["https://a.test"],"expose":["a b"]}"#, "expose[0]: `a b` is not a header name"),
            (r#"{"origins":["https://a.test"],"max_age":"2d"}"#, "max_age: no browser remembers a preflight for so"),
        ] {
            let faults = filter(config).unwrap_err();
            assert!(matches!(faults.as_slice(), [fault] if fault.starts_with(wanted)), "{config}: {faults:?}");
        }
    }
}
