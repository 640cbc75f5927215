//! JWK sets of a URL.
//!
//! Keys are fetched when they are needed for the first time, then in the background by the first request after
//! `refresh`. Requests wait only if there are no keys, if the keys are older than twice that time, or if a token names an
//! unknown key. A set that cannot be fetched leaves the previous one in use. At most one fetch runs at a time, and it
//! continues if its request ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::Full;
use parking_lot::Mutex;
use rustls::ClientConfig;

use super::algorithm::Algorithm;
use super::key::{KeySet, Origin};
use crate::tls::connection::{Connection, shorten};
use crate::tls::endpoint::Endpoint;
use crate::tls::service;

/// The largest JWK set in bytes.
pub const BODY_MAX: usize = 1 << 20;
/// The longest wait for a JWK set.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest time between two fetches.
const RETRY: Duration = Duration::from_secs(10);
/// The shortest time between two fetches because of unknown key ids.
const RETRY_UNKNOWN: Duration = Duration::from_secs(60);

/// Where a JWK set is.
#[derive(Clone, Debug)]
pub struct Location {
    /// The URL as configured.
    pub url: String,
    /// The server.
    pub endpoint: Endpoint,
    /// The path and query.
    pub target: String,
    /// TLS, for https.
    pub tls: Option<Arc<ClientConfig>>,
    /// The authorities of `tls` in PEM, if they are not those of the system.
    pub ca: Option<Vec<u8>>,
}

impl Location {
    /// Reads a URL with http or https. `ca` has the authorities in PEM that may sign the certificate of the server instead of
    /// those of the system.
    ///
    /// # Errors
    /// A sentence about the URL or the authorities.
    pub fn parse(url: &str, ca: Option<Vec<u8>>) -> Result<Self, String> {
        let not_a_url = || format!("`{url}` is not a URL with http or https");
        let uri: http::Uri = url.parse().map_err(|_| not_a_url())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(not_a_url()) };
        if authority.as_str().contains('@') {
            return Err("the URL of keys has no user".to_owned());
        }
        let port = |tls: bool| if tls { 443 } else { 80 };
        let (endpoint, _) = Endpoint::parse(&format!("{scheme}://{authority}"), port).map_err(|_| not_a_url())?;
        if ca.is_some() && !endpoint.tls {
            return Err("`ca` has no effect without https".to_owned());
        }
        let tls = endpoint.tls.then(|| service::client_config(ca.as_deref(), None, &["h2", "http/1.1"])).transpose()?;
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        Ok(Self { url: url.to_owned(), endpoint, target, tls, ca })
    }
}

/// Fetched keys.
#[derive(Debug)]
struct Fetched {
    keys: KeySet,
    at: Instant,
}

/// A JWK set of a URL.
#[derive(Debug)]
pub struct Remote {
    location: Location,
    allowed: Vec<Algorithm>,
    refresh: Duration,
    fetched: ArcSwapOption<Fetched>,
    /// When the last fetch started.
    last: Mutex<Option<Instant>>,
    /// The number of fetches so far.
    fetches: AtomicU64,
    /// Held by a fetch.
    turn: tokio::sync::Mutex<()>,
    /// Whether a fetch is running.
    is_running: AtomicBool,
    /// Whether the last fetch failed.
    failed: AtomicBool,
}

/// What a request does about the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: the keys are new enough, or a fetch would come too early.
    None,
    /// It lets the keys be fetched, and uses the present ones.
    Background,
    /// It waits for a fetch.
    Wait,
}

impl Remote {
    /// A set that is not fetched yet. `allowed` has the algorithms; an empty list stands for all.
    #[must_use]
    pub fn new(location: Location, allowed: Vec<Algorithm>, refresh: Duration) -> Self {
        Self {
            location,
            allowed,
            refresh,
            fetched: ArcSwapOption::empty(),
            last: Mutex::default(),
            fetches: AtomicU64::default(),
            turn: tokio::sync::Mutex::default(),
            is_running: AtomicBool::default(),
            failed: AtomicBool::default(),
        }
    }

    /// Whether `other` fetches the same keys in the same way.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.location, &other.location);
        (&ours.url, &ours.ca) == (&theirs.url, &theirs.ca)
            && (&self.allowed, self.refresh) == (&other.allowed, other.refresh)
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.location.url
    }

    /// Calls `use_keys` with the present keys; `None` if there are none.
    pub fn with_keys<T>(&self, use_keys: impl FnOnce(&KeySet) -> T) -> Option<T> {
        self.fetched.load().as_ref().map(|fetched| use_keys(&fetched.keys))
    }

    /// What a request at `now` does about the keys.
    #[must_use]
    pub fn need(&self, now: Instant) -> Need {
        let age = self.fetched.load().as_ref().map(|fetched| now.saturating_duration_since(fetched.at));
        let waits = age.is_none_or(|age| age > self.refresh.saturating_mul(2));
        if !waits && age.is_some_and(|age| age <= self.refresh) {
            return Need::None;
        }
        match (waits, self.may_fetch(now, RETRY)) {
            (true, _) if self.is_running() => Need::Wait,
            (_, false) => Need::None,
            (true, true) => Need::Wait,
            (false, true) => Need::Background,
        }
    }

    /// What a request at `now` does whose token names an unknown key.
    #[must_use]
    pub fn need_for_unknown_key(&self, now: Instant) -> Need {
        if self.is_running() || self.may_fetch(now, RETRY_UNKNOWN) { Need::Wait } else { Need::None }
    }

    fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }

    fn may_fetch(&self, now: Instant, pause: Duration) -> bool {
        self.last.lock().is_none_or(|last| now.saturating_duration_since(last) >= pause)
    }

    /// Fetches the keys in a task of its own, unless a fetch has ended meanwhile. Does nothing outside of a runtime.
    pub fn start_fetch(self: &Arc<Self>) -> Option<tokio::task::JoinHandle<()>> {
        let (remote, fetches) = (Arc::clone(self), self.fetches.load(Ordering::Acquire));
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        Some(runtime.spawn(async move {
            let _turn = remote.turn.lock().await;
            if remote.fetches.load(Ordering::Acquire) == fetches {
                remote.fetch_once().await;
            }
        }))
    }

    async fn fetch_once(&self) {
        #[expect(clippy::disallowed_methods, reason = "the time when keys arrive cannot be an argument")]
        let now = Instant::now;
        *self.last.lock() = Some(now());
        self.is_running.store(true, Ordering::Release);
        let result = self.download().await.and_then(|body| KeySet::from_json(&body, &self.allowed, Origin::Url));
        self.accept(result, now());
        self.fetches.fetch_add(1, Ordering::AcqRel);
        self.is_running.store(false, Ordering::Release);
    }

    /// Uses fetched keys; a failure keeps the present ones, and is reported once.
    fn accept(&self, result: Result<KeySet, String>, now: Instant) {
        match result {
            Ok(keys) => {
                self.fetched.store(Some(Arc::new(Fetched { keys, at: now })));
                if self.failed.swap(false, Ordering::AcqRel) {
                    log::info!("keys of tokens are read from {} again", self.location.url);
                }
            }
            Err(reason) => {
                if !self.failed.swap(true, Ordering::AcqRel) {
                    log::warn!("cannot read keys of tokens from {}: {}", self.location.url, shorten(&reason));
                }
            }
        }
    }

    async fn download(&self) -> Result<Bytes, String> {
        let Location { endpoint, target, tls, .. } = &self.location;
        let fetch = async {
            let mut connection = Connection::open(endpoint, tls.as_ref().map(|tls| (tls, None)), TIMEOUT).await?;
            let request = connection.request(Method::GET, target).header(header::ACCEPT, "application/json");
            let request = request.body(Full::new(Bytes::new())).map_err(|e| e.to_string())?;
            let response = connection.fetch_at_most(request, BODY_MAX).await?;
            match response.status() {
                StatusCode::OK => Ok(response.into_body()),
                status => Err(format!("the response has status {status}")),
            }
        };
        tokio::time::timeout(TIMEOUT, fetch).await.map_err(|_| format!("no complete response within {TIMEOUT:?}"))?
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn remote() -> Remote {
        at_port(1)
    }

    fn at_port(port: u16) -> Remote {
        let endpoint = Endpoint { tls: false, host: "127.0.0.1".to_owned(), port };
        let location =
            Location { url: "http://127.0.0.1:1/".to_owned(), endpoint, target: "/".to_owned(), tls: None, ca: None };
        Remote::new(location, Vec::new(), Duration::from_secs(600))
    }

    fn keys() -> Result<KeySet, String> {
        KeySet::from_json(SET.as_bytes(), &[], Origin::Url)
    }

    #[test]
    fn keys_are_fetched_first_by_a_waiting_request_and_later_in_the_background() {
        let (remote, start) = (remote(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(remote.need(at(0)), Need::Wait);
        *remote.last.lock() = Some(at(0));
        remote.accept(keys(), at(0));
        assert_eq!(
            [0, 600, 601, 1_201].map(|second| remote.need(at(second))),
            [Need::None, Need::None, Need::Background, Need::Wait]
        );
        assert_eq!([59, 60].map(|second| remote.need_for_unknown_key(at(second))), [Need::None, Need::Wait]);
    }

    #[test]
    fn keys_outlast_a_failed_fetch_whose_repetition_waits() {
        let (remote, start) = (remote(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        remote.accept(keys(), at(0));
        *remote.last.lock() = Some(at(700));
        remote.accept(Err("down".to_owned()), at(700));
        assert!(remote.with_keys(|keys| keys.0.len()) == Some(1));
        assert_eq!([705, 710].map(|second| remote.need(at(second))), [Need::None, Need::Background]);
    }

    /// Serves these bodies, one for each connection.
    fn serve(bodies: Vec<String>) -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for (body, stream) in bodies.into_iter().zip(listener.incoming()) {
                let mut stream = stream.unwrap();
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn later_fetch_replaces_the_keys_and_requests_share_it() {
        let named = |id: &str| SET.replace("\"x\"", &format!("\"kid\":\"{id}\",\"x\""));
        let remote = Arc::new(at_port(serve(vec![named("a"), named("b"), "{}".to_owned()])));
        let id = || remote.with_keys(|keys| keys.0[0].id.clone().unwrap());
        assert_eq!(id(), None);
        for (wanted, fetches) in [("a", 1), ("b", 2), ("b", 3)] {
            let tasks = [(); 5].map(|()| remote.start_fetch().unwrap());
            for task in tasks {
                task.await.unwrap();
            }
            // The last set has no keys, so the one before stays.
            assert_eq!((id().as_deref(), remote.fetches.load(Ordering::Acquire)), (Some(wanted), fetches));
        }
    }

    #[test]
    fn several_requests_wait_for_one_fetch() {
        let (remote, now) = (remote(), Instant::now());
        remote.is_running.store(true, Ordering::Release);
        *remote.last.lock() = Some(now);
        assert_eq!((remote.need(now), remote.need_for_unknown_key(now)), (Need::Wait, Need::Wait));
        remote.is_running.store(false, Ordering::Release);
        assert_eq!((remote.need(now), remote.need_for_unknown_key(now)), (Need::None, Need::None));
    }
}
