//! `basic_auth`: user and password by RFC 7617, with the users of a file.
//!
//! Passwords are checked off the thread of the request ([`super::password_checks`]). An unknown user takes as long as a
//! known one. After too many failures a client waits, also with the right password, so that it cannot find one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::changes::FieldChange;
use super::config::{Configuration, Surroundings};
use super::failures::Failures;
use super::field_names::{self, Message};
use super::htpasswd::Users;
use super::password_checks::{self, Check, Checks, Credentials, Outcome, Started};
use super::response::Source;
use super::subrequests::Subrequests;
use super::watched_file::{Watched, WatchedFile};
use super::{Filter, Pending, Request, Resolution, Response, Step};
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::http::client_address::ClientKey;
use crate::http::fields::single;
use crate::http::rejection::{DetailedRejection, Rejection};

/// The longest value of `Authorization` that is examined.
const VALUE_MAX: usize = 1024;
/// The default for the failures of a client.
const FAILURES: u32 = 10;
/// The default window of failures.
const WINDOW: Duration = Duration::from_secs(60);
/// The default time for which a right password is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);

/// Configuration of the filter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file with users and hashes of their passwords (bcrypt, SHA-crypt). It is read again when it changes.
    pub file: PathBuf,
    /// What browsers show to their user; the name of the route by default.
    #[serde(default)]
    pub realm: Option<String>,
    /// Whether backends do not get `Authorization`.
    #[serde(default)]
    pub remove: bool,
    /// A header in which backends get the user.
    #[serde(default)]
    pub user_header: Option<String>,
    /// The failures of a client in `failure_window`, after which it gets 429; 10 by default.
    #[serde(default)]
    pub failures: Option<u32>,
    /// The window of `failures`; 1m by default.
    #[serde(default)]
    pub failure_window: Option<Period>,
    /// How long a right password is not checked again; 5m by default, 0s: checked each time.
    #[serde(default)]
    pub remember: Option<Period>,
}

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        let realm = self.realm.as_deref();
        if realm.is_some_and(|realm| realm.bytes().any(|byte| matches!(byte, b'"' | b'\\') || byte.is_ascii_control()))
        {
            let problem = "the realm has a quote, a backslash or a control character";
            faults.add(place.key("realm"), problem, "write for example `realm: internal`");
        }
        let user_header = self.user_header.as_ref();
        let user_header =
            user_header.map(|name| field_names::parse(name, Message::Request, &place.key("user_header"), faults));
        let failures = self.failures.unwrap_or(FAILURES);
        let window = self.failure_window.map_or(WINDOW, |Period(window)| window);
        for (key, is_zero) in [("failures", failures == 0), ("failure_window", window.is_zero())] {
            if is_zero {
                faults.add(place.key(key), "must be greater than zero", "remove the key to use the default");
            }
        }
        let place = place.key("file");
        let hint = "write it with `htpasswd -B -c FILE USER`";
        let remember = self.remember.map_or(REMEMBERED, |Period(remember)| remember);
        let opened = Watched::open(&self.file, Users::parse);
        match opened.and_then(|users| Ok((users, Checks::new(remember)?))) {
            Ok((users, checks)) => Some(Arc::new(BasicAuth {
                users: Arc::new(users),
                realm: self.realm.clone(),
                remove: self.remove,
                user_header: user_header.flatten(),
                failures: Arc::new(Failures::new(failures, window)),
                checks: Arc::new(checks),
            })),
            Err(reason) => {
                faults.add(place, reason, hint);
                None
            }
        }
    }
}

#[derive(Debug)]
struct BasicAuth {
    users: Arc<Watched<Users>>,
    realm: Option<String>,
    remove: bool,
    user_header: Option<HeaderName>,
    failures: Arc<Failures>,
    checks: Arc<Checks>,
}

impl BasicAuth {
    /// The challenge of a 401 (RFC 7617 §2).
    fn challenge(&self, route: &str) -> HeaderValue {
        let realm = self.realm.as_deref().unwrap_or(route);
        // The name of a route may have any characters.
        let realm: String = realm.chars().filter(|c| !matches!(c, '"' | '\\')).collect();
        let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
        HeaderValue::from_str(&challenge).unwrap_or(HeaderValue::from_static("Basic realm=\"l7lb\""))
    }

    /// The changes for backends once the user is known.
    fn changes(&self, user: &HeaderValue) -> Vec<FieldChange> {
        let name = self.user_header.iter().map(|name| FieldChange::Set(name.clone(), user.clone()));
        let removed = self.remove.then_some(FieldChange::Remove(header::AUTHORIZATION));
        name.chain(removed).collect()
    }
}

/// The credentials in `Authorization`; `None` if there are none, or they are malformed.
fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let value = single(headers, &header::AUTHORIZATION)?.to_str().ok().filter(|value| value.len() <= VALUE_MAX)?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    // RFC 7617 §2: neither has control characters. NUL would end a password for bcrypt.
    let is_control = |byte: &u8| byte.is_ascii_control();
    if decoded.iter().any(is_control) {
        return None;
    }
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at_checked(colon)?;
    let user = String::from_utf8(user.to_vec()).ok()?;
    Some(Credentials { user, password: password.get(1..)?.to_vec() })
}

fn unauthorized(detail: &'static str) -> Step {
    Step::Reject(DetailedRejection { rejection: Rejection::Unauthorized, detail })
}

fn too_many(retry_after: Duration) -> Step {
    let rejection = Rejection::RateLimited { retry_after };
    Step::Reject(DetailedRejection { rejection, detail: "too many wrong passwords" })
}

impl Filter for BasicAuth {
    #[expect(clippy::disallowed_methods, reason = "the age of a remembered success is needed")]
    fn request(&self, request: &mut Request<'_>) -> Step {
        let Some(credentials) = credentials(request.fields()) else {
            return unauthorized("there are no credentials");
        };
        let (client, now) = (ClientKey::from(request.facts.client), Instant::now());
        let users = self.users.load();
        let changes = users.value.get(&credentials.user).map(|user| self.changes(&user.name)).unwrap_or_default();
        let check = self.checks.prepare(credentials, &users.value);
        if !request.facts.is_example {
            if let Err(retry_after) = self.failures.check(client, now) {
                return too_many(retry_after);
            }
            if self.checks.is_remembered(&check, now) {
                request.changes.fields.extend(changes);
                return Step::Continue;
            }
        }
        let (checks, failures) = (Arc::clone(&self.checks), Arc::clone(&self.failures));
        Step::Wait(Box::new(PasswordCheck { check, checks, client, failures, changes }))
    }

    fn response(&self, response: &mut Response<'_>) {
        let is_challenge = response.source == Source::Rejection(Rejection::Unauthorized.cause());
        if is_challenge && *response.status == StatusCode::UNAUTHORIZED {
            response.headers.append(header::WWW_AUTHENTICATE, self.challenge(response.facts.route));
        }
    }

    fn describe(&self) -> String {
        format!("the users of {}", self.users.file().display())
    }

    fn files(&self) -> u64 {
        self.users.hash()
    }

    fn watched(&self) -> Vec<Arc<dyn WatchedFile>> {
        vec![Arc::clone(&self.users) as Arc<dyn WatchedFile>]
    }
}

/// The check of a password.
struct PasswordCheck {
    check: Check,
    checks: Arc<Checks>,
    client: ClientKey,
    failures: Arc<Failures>,
    changes: Vec<FieldChange>,
}

#[async_trait]
impl Pending for PasswordCheck {
    fn describe(&self) -> String {
        "checks the password".to_owned()
    }

    #[expect(clippy::disallowed_methods, reason = "the window of failures starts now")]
    async fn resolve(self: Box<Self>, _: &dyn Subrequests) -> Resolution {
        let Self { check, checks, client, failures, changes } = *self;
        let ended = |step| Resolution { step, fields: Vec::new() };
        if let Err(retry_after) = failures.begin(client, Instant::now()) {
            return ended(too_many(retry_after));
        }
        let counted = Arc::clone(&failures);
        let outcome = match checks.start(check, move || counted.forgive(client)) {
            Started::Known(outcome) => {
                failures.forgive(client);
                outcome
            }
            Started::Running(running, own) => {
                if !own {
                    // The attempt counts for the request that started it.
                    failures.forgive(client);
                }
                password_checks::outcome(running).await
            }
        };
        match outcome {
            Outcome::Right => Resolution { step: Step::Continue, fields: changes },
            Outcome::Wrong => ended(unauthorized("the user or the password is wrong")),
            Outcome::Busy => {
                let rejection = Rejection::AuthUnavailable;
                ended(Step::Reject(DetailedRejection { rejection, detail: "too many passwords wait for their check" }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(values: &[&str]) -> Option<(String, Vec<u8>)> {
        let fields = values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
        credentials(&fields.collect::<Vec<_>>().into_iter().fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        }))
        .map(|credentials| (credentials.user, credentials.password))
    }

    #[test]
    fn credentials_are_read_by_rfc_7617_and_malformed_ones_are_none() {
        let basic = |text: &[u8]| format!("Basic {}", STANDARD.encode(text));
        for (value, user, password) in [
            (basic(b"Aladdin:open sesame"), "Aladdin", &b"open sesame"[..]),
            (basic(b"a:b:c"), "a", b"b:c"),
            (basic(b"a:"), "a", b""),
            (basic(b":b"), "", b"b"),
            (basic("ä:ö".as_bytes()), "ä", "ö".as_bytes()),
            (basic(b"a:\xff"), "a", b"\xff"),
            (basic(b"a:b").replace("Basic", "bASIC "), "a", b"b"),
        ] {
            assert_eq!(parsed(&[&value]), Some((user.to_owned(), password.to_vec())), "{value}");
        }
        let long = basic(&[b'a'; 2 * VALUE_MAX]);
        let (nul, control, no_colon, latin) = (basic(b"a:b\0c"), basic(b"a\r\n:b"), basic(b"ab"), basic(b"\xff:b"));
        for value in [
            "",
            "Basic",
            "Basic ",
            "Basic !",
            "Basic YTpi=",
            "Bearer YTpi",
            "YTpi",
            &long,
            &nul,
            &control,
            &no_colon,
            &latin,
        ] {
            assert_eq!(parsed(&[value]), None, "{value}");
        }
        assert_eq!(parsed(&[]), None);
        assert_eq!(parsed(&[&basic(b"a:b"), &basic(b"a:b")]), None, "two fields");
    }
}
