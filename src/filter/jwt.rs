//! `jwt`: requests need a signed token (RFC 7519, RFC 6750).
//!
//! The signature and the times are verified here; backends get claims in header fields, which clients cannot set.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{Configuration, Surroundings};
use super::field_names::{self, Message};
use super::subrequests::Subrequests;
use super::token::remote::{Location, Need};
use super::token::{Algorithm, ClaimRules, Claims, KeySet, Refusal, Remote, verify};
use super::watched_file::content_hash;
use super::{Filter, Pending, Request, Resolution, Response, SharedState, Step};
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::http::rejection::{DetailedRejection, Rejection};
use crate::routing::affinity::cookie_value;

/// Configuration of the filter.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A file with public keys: PEM, certificates in PEM, or a JWK set. It is read at the start and at a reload.
    pub keys: Option<PathBuf>,
    /// A file with the secret of HS256, HS384 or HS512, without a line break at its end.
    pub secret: Option<PathBuf>,
    /// The URL of a JWK set.
    pub jwks: Option<String>,
    /// A PEM file with the authorities that may sign the certificate at `jwks`. By default, those of the system.
    pub ca: Option<PathBuf>,
    /// How often the JWK set at `jwks` is read; 10m by default.
    pub refresh: Option<Period>,
    /// The algorithms of keys; other keys are not used. By default those of public keys, for `secret` HS256. A key without an
    /// algorithm of its own has the first one that fits.
    pub algorithms: Vec<Algorithm>,
    /// The accepted issuers; any by default.
    pub issuers: Vec<String>,
    /// The accepted audiences; any by default.
    pub audiences: Vec<String>,
    /// How far the clocks may differ; 30s by default.
    pub leeway: Option<Period>,
    /// Whether a token needs no time of expiry.
    pub without_expiry: bool,
    /// Claims that a token must have, each with its accepted values; any if there are none.
    pub required_claims: BTreeMap<String, Vec<String>>,
    /// Header fields for backends, each with the claim that is its value.
    pub claim_headers: BTreeMap<String, String>,
    /// The header field with the token; Authorization with the scheme Bearer by default.
    pub header: Option<String>,
    /// The cookie with the token, instead of a field or if there is none.
    pub cookie: Option<String>,
    /// The realm in WWW-Authenticate.
    pub realm: Option<String>,
}

const REFRESH: Duration = Duration::from_secs(600);
const REFRESH_MIN: Duration = Duration::from_secs(10);
const LEEWAY: Duration = Duration::from_secs(30);
const LEEWAY_MAX: Duration = Duration::from_secs(600);

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        let leeway = self.leeway.map_or(LEEWAY, |leeway| leeway.0);
        if leeway > LEEWAY_MAX {
            faults.add(place.key("leeway"), "tokens would be valid for long after their expiry", "write at most 10m");
        }
        if self.issuers.is_empty() && self.jwks.is_some() {
            let hint = "write for example `issuers: [https://login.example.com]`";
            faults.add(place.clone(), "tokens of any issuer with these keys would be accepted", hint);
        }
        let fields = self.claim_headers.iter().filter_map(|(name, claim)| {
            let place = place.key("claim_headers").key(name);
            Some((field_names::parse(name, Message::Request, &place, faults)?, claim.clone()))
        });
        let fields = fields.collect();
        let sources = self.check_sources(place, faults);
        let realm = self.realm.as_deref().unwrap_or("l7lb");
        if realm.contains(['"', '\\']) || HeaderValue::from_str(realm).is_err() {
            let hint = "write visible ASCII characters without quotes";
            faults.add(place.key("realm"), "the realm cannot be in a header value", hint);
        }
        let keys = self.check_keys(place, faults);
        let rules = ClaimRules {
            issuers: self.issuers.clone(),
            audiences: self.audiences.clone(),
            leeway,
            without_expiry: self.without_expiry,
            required: self.required_claims.clone().into_iter().collect(),
        };
        Some(Arc::new(Jwt { keys: keys?, sources: sources?, rules, fields, realm: realm.to_owned() }))
    }
}

impl Config {
    fn check_sources(&self, place: &Place, faults: &mut Faults) -> Option<Vec<Source>> {
        let mut sources = Vec::new();
        match &self.header {
            Some(name) => match name.parse() {
                Ok(name) => sources.push(Source::Field(name)),
                Err(_) => {
                    let problem = format!("`{name}` is not a header name");
                    faults.add(place.key("header"), problem, "write for example X-Token");
                    return None;
                }
            },
            None if self.cookie.is_some() => {}
            None => sources.push(Source::Field(header::AUTHORIZATION)),
        }
        sources.extend(self.cookie.clone().map(Source::Cookie));
        Some(sources)
    }

    /// The keys, from exactly one of their places.
    fn check_keys(&self, place: &Place, faults: &mut Faults) -> Option<Keys> {
        let given =
            usize::from(self.keys.is_some()) + usize::from(self.secret.is_some()) + usize::from(self.jwks.is_some());
        if given != 1 {
            let problem = if given == 0 { "there is no key" } else { "keys come from one place" };
            faults.add(place.clone(), problem, "write one of `keys: FILE`, `secret: FILE`, `jwks: URL`");
            return None;
        }
        if self.jwks.is_none() {
            for (key, is_given) in [("ca", self.ca.is_some()), ("refresh", self.refresh.is_some())] {
                if is_given {
                    faults.add(place.key(key), format!("`{key}` has no effect without `jwks`"), "remove it");
                }
            }
        }
        let mixed = self.algorithms.iter().any(|one| one.is_secret() != self.secret.is_some());
        if mixed && self.keys.is_none() {
            let problem = "algorithms with a secret (HS) and with public keys cannot be mixed";
            let hint = "write HS256, HS384 or HS512 for a secret, otherwise for example RS256";
            faults.add(place.key("algorithms"), problem, hint);
            return None;
        }
        match (&self.keys, &self.secret, &self.jwks) {
            (Some(file), _, _) => read(file, &place.key("keys"), faults, |bytes| KeySet::read(bytes, &self.algorithms)),
            (_, Some(file), _) => {
                let algorithm = self.algorithms.first().copied().unwrap_or(Algorithm::HS256);
                if self.algorithms.len() > 1 {
                    faults.add(place.key("algorithms"), "a secret has one algorithm", "write for example [HS256]");
                }
                read(file, &place.key("secret"), faults, |bytes| {
                    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                    KeySet::from_secret(line.strip_suffix(b"\r").unwrap_or(line), algorithm)
                })
            }
            (_, _, url) => self.check_remote(url.as_deref()?, place, faults),
        }
    }

    fn check_remote(&self, url: &str, place: &Place, faults: &mut Faults) -> Option<Keys> {
        let refresh = self.refresh.map_or(REFRESH, |period| period.0);
        if refresh < REFRESH_MIN {
            faults.add(place.key("refresh"), "the server would get too many requests", "write at least 10s");
        }
        let ca = match self.ca.as_ref().map(|file| (file, std::fs::read(file))) {
            None => None,
            Some((_, Ok(pem))) => Some(pem),
            Some((file, Err(e))) => {
                let problem = format!("cannot read {}: {e}", file.display());
                faults.add(place.key("ca"), problem, "give a readable PEM file");
                return None;
            }
        };
        let hash = content_hash(ca.as_deref().unwrap_or_default());
        match Location::parse(url, ca) {
            Ok(location) => {
                let remote = Remote::new(location, self.algorithms.clone(), refresh);
                Some(Keys::Url(UrlKeys { own: Arc::new(remote), shared: OnceLock::new(), hash }))
            }
            Err(problem) => {
                let hint = "write for example https://login.example.com/.well-known/jwks.json";
                faults.add(place.key("jwks"), problem, hint);
                None
            }
        }
    }
}

/// Reads keys from a file; otherwise reports why not, without any part of the contents.
fn read(
    file: &PathBuf,
    place: &Place,
    faults: &mut Faults,
    parse: impl Fn(&[u8]) -> Result<KeySet, String>,
) -> Option<Keys> {
    let bytes = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()));
    let keys = bytes.and_then(|bytes| {
        let keys = parse(&bytes).map_err(|reason| format!("{}: {reason}", file.display()))?;
        Ok(Keys::File(keys, content_hash(&bytes)))
    });
    keys.map_err(|problem| faults.add(place.clone(), problem, "give a readable file with usable keys")).ok()
}

/// Where keys come from.
#[derive(Debug)]
enum Keys {
    /// A file, with a hash of its contents.
    File(KeySet, u64),
    /// A URL.
    Url(UrlKeys),
}

/// Keys at a URL, which equal filters share.
#[derive(Debug)]
struct UrlKeys {
    own: Arc<Remote>,
    /// Set when the filter becomes part of a snapshot.
    shared: OnceLock<Arc<Remote>>,
    /// A hash of the contents of `ca`.
    hash: u64,
}

impl UrlKeys {
    fn current(&self) -> &Arc<Remote> {
        self.shared.get().unwrap_or(&self.own)
    }
}

/// Where a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Field(HeaderName),
    Cookie(String),
}

/// The filter.
#[derive(Debug)]
struct Jwt {
    keys: Keys,
    sources: Vec<Source>,
    rules: ClaimRules,
    fields: Vec<(HeaderName, String)>,
    realm: String,
}

/// Waits until keys have been fetched.
struct Fetch(Arc<Remote>);

#[async_trait]
impl Pending for Fetch {
    fn describe(&self) -> String {
        format!("reads the keys from {}", self.0.url())
    }

    async fn resolve(self: Box<Self>, _: &dyn Subrequests) -> Resolution {
        if let Some(fetch) = self.0.start_fetch() {
            // A fetch that panics leaves the keys as they are.
            fetch.await.ok();
        }
        Resolution { step: Step::Repeat, fields: Vec::new() }
    }
}

const fn reject(rejection: Rejection, detail: &'static str) -> Step {
    Step::Reject(DetailedRejection { rejection, detail })
}

/// The token of a field: after the scheme Bearer, which only Authorization must have.
fn of_field<'a>(name: &HeaderName, value: &'a str) -> Option<&'a str> {
    let bearer = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match bearer {
        Some((_, token)) => Some(token.trim()),
        None => (*name != header::AUTHORIZATION).then_some(value),
    }
}

impl Jwt {
    /// The token of a request; `None` if there is none.
    fn token<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Refusal> {
        for source in &self.sources {
            let found = match source {
                Source::Cookie(name) => cookie_value(headers, name),
                Source::Field(name) => {
                    let mut values = headers.get_all(name).iter();
                    match (values.next(), values.next()) {
                        (None, _) => None,
                        // A backend might read the other one.
                        (Some(_), Some(_)) => return Err(Refusal::Malformed),
                        (Some(value), None) => of_field(name, value.to_str().map_err(|_| Refusal::Malformed)?),
                    }
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The claims of a verified token, or what follows.
    fn claims(&self, token: &str, is_example: bool, (now, time): (Instant, SystemTime)) -> Result<Claims, Step> {
        let verified = match &self.keys {
            Keys::File(keys, _) => verify(token, keys),
            Keys::Url(keys) => {
                let remote = keys.current();
                let wait = || Err(Step::Wait(Box::new(Fetch(Arc::clone(remote)))));
                match remote.need(now) {
                    Need::Wait => return wait(),
                    Need::Background if !is_example => drop(remote.start_fetch()),
                    Need::Background | Need::None => {}
                }
                match remote.with_keys(|keys| verify(token, keys)) {
                    None => return Err(reject(Rejection::AuthUnavailable, "the keys of tokens cannot be read")),
                    Some(Err(Refusal::UnknownKey)) if remote.need_for_unknown_key(now) == Need::Wait => return wait(),
                    Some(verified) => verified,
                }
            }
        };
        let refused = |refusal: Refusal| reject(Rejection::Unauthorized, refusal.words());
        let claims = verified.map_err(refused)?;
        self.rules.check(&claims, time).map_err(refused)?;
        if !self.rules.permit(&claims) {
            return Err(reject(Rejection::AccessDenied, "the token lacks a required claim"));
        }
        Ok(claims)
    }
}

impl Filter for Jwt {
    fn request(&self, request: &mut Request<'_>) -> Step {
        #[expect(clippy::disallowed_methods, reason = "the filter is the place where time enters")]
        let now = (Instant::now(), SystemTime::now());
        let claims = match self.token(request.fields()) {
            Ok(Some(token)) => self.claims(token, request.facts.is_example, now),
            Ok(None) => Err(reject(Rejection::Unauthorized, "there is no token")),
            Err(refusal) => Err(reject(Rejection::Unauthorized, refusal.words())),
        };
        let claims = match claims {
            Ok(claims) => claims,
            Err(step) => return step,
        };
        for (name, claim) in &self.fields {
            match claims.header(claim) {
                Some(value) => request.set_field(name.clone(), value),
                // The client must not set it instead.
                None if request.has_field(name) => request.remove_field(name.clone()),
                None => {}
            }
        }
        request.changes.claims = Some(Arc::new(claims));
        Step::Continue
    }

    fn response(&self, response: &mut Response<'_>) {
        if *response.status != StatusCode::UNAUTHORIZED || response.source.is_backend() {
            return;
        }
        // RFC 6750 §3.1: without a token, the challenge has no error.
        let error = match self.token(&response.request.headers) {
            Ok(None) => "",
            _ => ", error=\"invalid_token\"",
        };
        if let Ok(challenge) = HeaderValue::try_from(format!("Bearer realm=\"{}\"{error}", self.realm)) {
            response.headers.append(header::WWW_AUTHENTICATE, challenge);
        }
    }

    fn describe(&self) -> String {
        let keys = match &self.keys {
            Keys::File(keys, _) => format!("keys for {}", keys.algorithms()),
            Keys::Url(keys) => format!("keys from {}", keys.own.url()),
        };
        let claims: Vec<&str> = self.rules.required.iter().map(|(name, _)| name.as_str()).collect();
        let claims = if claims.is_empty() { String::new() } else { format!("; requires {}", claims.join(", ")) };
        format!("{keys}{claims}")
    }

    fn share_state(&self, shared: &mut SharedState) {
        if let Keys::Url(keys) = &self.keys {
            // It is set already if the filter was part of the previous snapshot.
            keys.shared.set(shared.keys(keys.current())).ok();
        }
    }

    fn files(&self) -> u64 {
        match &self.keys {
            Keys::File(_, hash) => *hash,
            Keys::Url(keys) => keys.hash,
        }
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
