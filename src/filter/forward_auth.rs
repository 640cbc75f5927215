//! `forward_auth`: another service decides whether a request may continue, as with Authelia or oauth2-proxy.
//!
//! The service gets a GET request with the forwarding headers. 2xx lets the request continue, with fields of the response;
//! 401, 403 and redirects go to the client. Everything else is a failure, which denies the request by default.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_lc_rs::digest;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_http::RequestHeader;
use quick_cache::sync::Cache;
use schemars::JsonSchema;
use serde::Deserialize;

use super::changes::FieldChange;
use super::config::{Configuration, Surroundings};
use super::field_names::{self, Message};
use super::respond::BODY_MAX;
use super::subrequests::{SubResponse, Subrequest, Subrequests};
use super::{Filter, LocalResponse, Pending, Request, Resolution, Step};
use crate::base::cause::Cause;
use crate::base::fault::{Faults, Place};
use crate::base::units::{Period, PoolName};
use crate::http::rejection::{DetailedRejection, Rejection};

/// The default timeout.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The approvals that are remembered.
const APPROVALS_MAX: usize = 16_384;
/// The largest fields of an approval in bytes.
const COPIED_MAX: usize = 16_384;

/// Configuration of the filter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The pool of the service.
    pub pool: PoolName,
    /// The path and query of the requests to the service.
    pub path: String,
    /// The fields of a request that the service gets; Authorization and Cookie by default.
    #[serde(default)]
    pub request_headers: Option<Vec<String>>,
    /// The fields of an approval that backends get. Those of the client with these names are removed.
    #[serde(default)]
    pub copy_headers: Vec<String>,
    /// How long an approval or a denial may take; 5s by default.
    #[serde(default)]
    pub timeout: Option<Period>,
    /// What applies if the service fails; `deny` by default.
    #[serde(default)]
    pub on_error: OnError,
    /// How long an approval applies to equal requests; 0s by default: each request is checked.
    #[serde(default)]
    pub remember: Option<Period>,
}

/// What applies if the service fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The request is rejected with 503.
    #[default]
    Deny,
    /// It continues, without fields of the service.
    Allow,
}

impl Config {
    fn names(names: &[String], place: &Place, faults: &mut Faults) -> Vec<HeaderName> {
        let names = names.iter().enumerate();
        names
            .filter_map(|(index, name)| field_names::parse(name, Message::Request, &place.index(index), faults))
            .collect()
    }
}

impl Configuration for Config {
    fn check(&self, place: &Place, around: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        around.check_subrequests(&self.pool, place, faults);
        let is_path = self.path.starts_with('/') && self.path.parse::<http::uri::PathAndQuery>().is_ok();
        if !is_path {
            faults.add(place.key("path"), format!("`{}` is not a path", self.path), "write for example /verify");
        }
        let timeout = self.timeout.map_or(TIMEOUT, |Period(timeout)| timeout);
        if timeout.is_zero() {
            faults.add(place.key("timeout"), "must be greater than zero", "write for example 5s");
        }
        let sent = match &self.request_headers {
            Some(names) => Self::names(names, &place.key("request_headers"), faults),
            None => vec![header::AUTHORIZATION, header::COOKIE],
        };
        let copied = Self::names(&self.copy_headers, &place.key("copy_headers"), faults);
        let remember = self.remember.map_or(Duration::ZERO, |Period(remember)| remember);
        let (pool, path, on_error) = (self.pool.clone(), self.path.clone(), self.on_error);
        let approvals = Arc::new(Approvals { lifetime: remember, known: Cache::new(APPROVALS_MAX) });
        is_path.then(|| {
            Arc::new(ForwardAuth { pool, path, sent, copied: copied.into(), timeout, on_error, approvals })
                as Arc<dyn Filter>
        })
    }
}

/// The approvals that are remembered, by a hash of everything that the service gets.
struct Approvals {
    lifetime: Duration,
    known: Cache<[u8; 32], (Instant, Arc<Vec<FieldChange>>)>,
}

impl std::fmt::Debug for Approvals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Approvals").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl Approvals {
    fn get(&self, key: Option<[u8; 32]>, now: Instant) -> Option<Arc<Vec<FieldChange>>> {
        let (since, changes) = self.known.get(&key?)?;
        (now.saturating_duration_since(since) < self.lifetime).then_some(changes)
    }
}

#[derive(Debug)]
struct ForwardAuth {
    pool: PoolName,
    path: String,
    sent: Vec<HeaderName>,
    copied: Arc<[HeaderName]>,
    timeout: Duration,
    on_error: OnError,
    approvals: Arc<Approvals>,
}

impl ForwardAuth {
    /// The request to the service.
    fn head(&self, request: &Request<'_>) -> Option<RequestHeader> {
        let mut head =
            RequestHeader::build_no_case(Method::GET, self.path.as_bytes(), Some(8 + self.sent.len())).ok()?;
        let (header, facts) = (request.header, request.facts);
        let uri = header.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let host = if facts.host.is_empty() { "localhost" } else { facts.host };
        for (name, value) in [
            ("host", host),
            ("x-forwarded-method", header.method.as_str()),
            ("x-forwarded-uri", uri),
            ("x-forwarded-host", facts.host),
            ("x-forwarded-proto", facts.scheme),
            ("x-forwarded-for", &client(facts.client)),
            ("x-request-id", facts.request_id),
        ] {
            let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
            head.insert_header(HeaderName::from_static(name), value).ok()?;
        }
        for name in &self.sent {
            for value in header.headers.get_all(name) {
                head.append_header(name, value).ok()?;
            }
        }
        Some(head)
    }
}

fn client(address: IpAddr) -> String {
    crate::http::client_address::canonical(address).to_string()
}

/// A hash of everything in a request except its id.
fn key(head: &RequestHeader) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for (name, value) in head.headers.iter().filter(|(name, _)| name.as_str() != "x-request-id") {
        // With their lengths, so that no two requests are the same bytes.
        for part in [name.as_str().as_bytes(), value.as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    let mut key = [0; 32];
    key.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    key
}

impl Filter for ForwardAuth {
    #[expect(clippy::disallowed_methods, reason = "the age of an approval is needed")]
    fn request(&self, request: &mut Request<'_>) -> Step {
        let Some(head) = self.head(request) else {
            return Step::Reject(DetailedRejection::bad_request(
                "the request cannot be sent to the service of forward_auth",
            ));
        };
        for name in self.copied.iter().filter(|name| request.header.headers.contains_key(*name)) {
            request.changes.fields.push(FieldChange::Remove(name.clone()));
        }
        let key = (!self.approvals.lifetime.is_zero()).then(|| key(&head));
        if let (false, Some(changes)) = (request.facts.is_example, self.approvals.get(key, Instant::now())) {
            request.changes.fields.extend(changes.iter().cloned());
            return Step::Continue;
        }
        let words = format!("asks pool {} at {}", self.pool, self.path);
        let subrequest = Subrequest { pool: self.pool.clone(), head, timeout: self.timeout, body_max: BODY_MAX };
        let (copied, on_error, approvals) = (Arc::clone(&self.copied), self.on_error, Arc::clone(&self.approvals));
        Step::Wait(Box::new(Question { subrequest, words, key, copied, on_error, approvals }))
    }

    fn describe(&self) -> String {
        let on_error = if self.on_error == OnError::Deny { "deny" } else { "allow" };
        format!("pool {} at {}, on error {on_error}", self.pool, self.path)
    }
}

/// A request to the service.
struct Question {
    subrequest: Subrequest,
    words: String,
    key: Option<[u8; 32]>,
    copied: Arc<[HeaderName]>,
    on_error: OnError,
    approvals: Arc<Approvals>,
}

#[async_trait]
impl Pending for Question {
    fn describe(&self) -> String {
        self.words.clone()
    }

    #[expect(clippy::disallowed_methods, reason = "the approval has arrived now")]
    async fn resolve(self: Box<Self>, subrequests: &dyn Subrequests) -> Resolution {
        let Self { subrequest, key, copied, on_error, approvals, .. } = *self;
        let answer = subrequests.send(subrequest).await.and_then(|response| answer(response, &copied));
        let (step, fields) = match (answer, on_error) {
            (Ok(Answer::Approved(changes)), _) => {
                if let Some(key) = key {
                    approvals.known.insert(key, (Instant::now(), Arc::new(changes.clone())));
                }
                (Step::Continue, changes)
            }
            (Ok(Answer::Denied(response)), _) => (Step::Respond(response), Vec::new()),
            (Err(reason), OnError::Allow) => {
                log::debug!("forward_auth: {reason}");
                (Step::Continue, Vec::new())
            }
            (Err(detail), OnError::Deny) => {
                let rejection = Rejection::AuthUnavailable;
                (Step::Reject(DetailedRejection { rejection, detail }), Vec::new())
            }
        };
        Resolution { step, fields }
    }
}

/// What the service decides.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The request continues with these changes.
    Approved(Vec<FieldChange>),
    /// The client gets this response.
    Denied(Box<LocalResponse>),
}

/// The fields of a denial that the client gets.
const FOR_CLIENT: [HeaderName; 6] = [
    header::LOCATION,
    header::WWW_AUTHENTICATE,
    header::SET_COOKIE,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CACHE_CONTROL,
];

/// Reads a response of the service.
fn answer(response: SubResponse, copied: &[HeaderName]) -> Result<Answer, &'static str> {
    let SubResponse { status, headers, body } = response;
    if status.is_success() {
        let mut changes = Vec::new();
        for name in copied {
            let mut values = headers.get_all(name).iter();
            changes.extend(values.next().map(|value| FieldChange::Set(name.clone(), value.clone())));
            changes.extend(values.map(|value| FieldChange::Add(name.clone(), value.clone())));
        }
        let bytes: usize = copied.iter().flat_map(|name| headers.get_all(name)).map(HeaderValue::len).sum();
        return if bytes <= COPIED_MAX {
            Ok(Answer::Approved(changes))
        } else {
            Err("the fields to copy are too large")
        };
    }
    let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    if !is_redirect && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err("the service responded with another status code");
    }
    let mut fields = HeaderMap::new();
    for name in &FOR_CLIENT {
        for value in headers.get_all(name) {
            fields.append(name.clone(), value.clone());
        }
    }
    if is_redirect && !fields.contains_key(header::LOCATION) {
        return Err("the service responded with a redirect without a location");
    }
    // The decision concerns this request only.
    fields.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    Ok(Answer::Denied(Box::new(LocalResponse { cause: Cause::ForwardAuth, status, headers: fields, body })))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::filter::Changes;
    use crate::filter::variables::tests::{facts, request};

    fn response(status: u16, fields: &[(&'static str, &str)]) -> SubResponse {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        SubResponse { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from_static(b"body") }
    }

    #[test]
    fn success_approves_with_the_listed_fields_only() {
        let user = HeaderName::from_static("remote-user");
        let groups = HeaderName::from_static("remote-groups");
        let approved = answer(
            response(
                204,
                &[("remote-user", "alice"), ("remote-groups", "a"), ("remote-groups", "b"), ("x-other", "c")],
            ),
            &[user.clone(), groups.clone(), HeaderName::from_static("x-missing")],
        );
        let value = HeaderValue::from_static;
        let wanted = vec![
            FieldChange::Set(user.clone(), value("alice")),
            FieldChange::Set(groups.clone(), value("a")),
            FieldChange::Add(groups, value("b")),
        ];
        assert_eq!(approved, Ok(Answer::Approved(wanted)));
        let large = "x".repeat(COPIED_MAX + 1);
        assert!(answer(response(200, &[("remote-user", &large)]), &[user]).is_err());
    }

    #[test]
    fn denial_goes_to_the_client_and_any_other_status_is_a_failure() {
        for status in [301, 302, 303, 307, 308, 401, 403] {
            let fields = [
                ("location", "https://login.test/"),
                ("set-cookie", "a=b"),
                ("x-secret", "c"),
                ("content-length", "4"),
            ];
            let Ok(Answer::Denied(denied)) = answer(response(status, &fields), &[]) else { panic!("{status}") };
            assert_eq!((denied.status.as_u16(), denied.body.as_ref()), (status, &b"body"[..]));
            let names: Vec<&str> = denied.headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, ["location", "set-cookie", "cache-control"], "{status}");
        }
        for status in [300, 304, 400, 404, 429, 500, 502, 503] {
            assert!(answer(response(status, &[("location", "/")]), &[]).is_err(), "{status}");
        }
        assert!(answer(response(302, &[]), &[]).is_err(), "a redirect without a location");
    }

    #[test]
    fn key_of_an_approval_differs_with_everything_that_the_service_gets_except_the_request_id() {
        let pool = PoolName::from("auth");
        let config: Config =
            serde_json::from_str(r#"{"pool":"auth","path":"/verify","request_headers":["cookie"]}"#).unwrap();
        let around = Surroundings { pools: &[&pool], ..Surroundings::default() };
        let mut faults = Faults::default();
        config.check(&Place::root(), &around, &mut faults).unwrap();
        assert!(faults.is_empty(), "{faults:?}");
        let filter = ForwardAuth {
            pool: pool.clone(),
            path: config.path,
            sent: vec![header::COOKIE],
            copied: Arc::from([]),
            timeout: TIMEOUT,
            on_error: OnError::Deny,
            approvals: Arc::new(Approvals { lifetime: TIMEOUT, known: Cache::new(1) }),
        };
        let of = |target: &str, cookie: &str, host: &str, scheme: &str, client: &str, id: &str| {
            let facts = crate::filter::Facts { client: client.parse().unwrap(), request_id: id, ..facts(host, scheme) };
            let (header, mut changes) = (request(target, &[("cookie", cookie)]), Changes::default());
            key(&filter.head(&Request { header: &header, facts: &facts, changes: &mut changes }).unwrap())
        };
        let one = of("/a?b", "c", "h", "http", "192.0.2.1", "1");
        assert_eq!(one, of("/a?b", "c", "h", "http", "192.0.2.1", "2"));
        for other in [
            of("/a?c", "c", "h", "http", "192.0.2.1", "1"),
            of("/a?b", "d", "h", "http", "192.0.2.1", "1"),
            of("/a?b", "c", "i", "http", "192.0.2.1", "1"),
            of("/a?b", "c", "h", "https", "192.0.2.1", "1"),
            of("/a?b", "c", "h", "http", "192.0.2.2", "1"),
        ] {
            assert_ne!(one, other);
        }
    }
}
