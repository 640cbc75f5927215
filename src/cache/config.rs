//! The `cache:` block of a route, and the `cache:` block of the file with the stores.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{Bypass, KeyRules, QueryRule, Rules, SetCookie};
use crate::base::fault::{Faults, Place};
use crate::base::units::{Period, Size};

/// Configuration of the stores.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoresConfig {
    /// The store in memory.
    pub memory: MemoryConfig,
    /// The store on disk.
    pub disk: DiskConfig,
}

/// Configuration of the store in memory.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// The most bytes of stored responses.
    pub size: Size,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { size: Size::mib(256) }
    }
}

/// Configuration of the store on disk.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiskConfig {
    /// The folder.
    pub path: PathBuf,
    /// The most bytes of files.
    pub size: Size,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self { path: "/var/cache/l7lb".into(), size: Size::mib(10 << 10) }
    }
}

/// A smaller store would hardly hold a response.
const SIZE_MIN: Size = Size::mib(1);

impl StoresConfig {
    /// The size of a store.
    #[must_use]
    pub const fn size(&self, kind: StoreKind) -> Size {
        match kind {
            StoreKind::Memory => self.memory.size,
            StoreKind::Disk => self.disk.size,
        }
    }

    /// Checks the block.
    pub fn check(&self, place: &Place, faults: &mut Faults) {
        for (name, size) in [("memory", self.memory.size), ("disk", self.disk.size)] {
            if size.0 < SIZE_MIN.0 {
                faults.add(
                    place.key(name).key("size"),
                    format!("{size} is less than {SIZE_MIN}"),
                    "write for example 256MiB",
                );
            }
        }
        if self.disk.path.as_os_str().is_empty() {
            faults.add(place.key("disk").key("path"), "the path is empty", "write for example /var/cache/l7lb");
        }
    }
}

/// Which store a route uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// In memory.
    #[default]
    Memory,
    /// On disk.
    Disk,
}

impl StoreKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Memory, Self::Disk];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Configuration of the cache of a route.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where responses are stored.
    pub store: StoreKind,
    /// How long a response is fresh that does not say it.
    pub default_ttl: Option<Period>,
    /// The longest time that any response is fresh.
    pub max_ttl: Option<Period>,
    /// The statuses that `default_ttl` and `heuristic` apply to.
    pub statuses: Vec<u16>,
    /// How long responses 404, 405, 410, 414 and 501 are fresh that do not say it.
    pub negative_ttl: Option<Period>,
    /// Whether freshness is estimated from Last-Modified if nothing states it.
    pub heuristic: bool,
    /// The methods whose requests use the cache: GET, HEAD.
    pub methods: Vec<String>,
    /// The number of requests for a response before it is stored.
    pub minimum_uses: u32,
    /// The largest stored body.
    pub max_object_size: Size,
    /// What happens to a response with Set-Cookie.
    pub set_cookie: SetCookie,
    /// How long a stale response may be sent while it is validated, if the response does not say it.
    pub stale_while_revalidate: Option<Period>,
    /// How long a stale response may be sent instead of an error, if the response does not say it.
    pub stale_if_error: Period,
    /// Whether Cache-Control and Pragma of requests are respected.
    pub client_directives: bool,
    /// How long a request waits for a response that another request is fetching.
    pub lock_timeout: Period,
    /// Whether responses have Cache-Status (RFC 9211).
    pub status_header: bool,
    /// What identifies a response.
    pub key: KeyConfig,
    /// Which requests use no cache.
    pub bypass: BypassConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: StoreKind::Memory,
            default_ttl: None,
            max_ttl: None,
            statuses: vec![200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501],
            negative_ttl: None,
            heuristic: false,
            methods: vec!["GET".to_owned(), "HEAD".to_owned()],
            minimum_uses: 1,
            max_object_size: Size::mib(64),
            set_cookie: SetCookie::Reject,
            stale_while_revalidate: None,
            stale_if_error: Period::seconds(60),
            client_directives: true,
            lock_timeout: Period::seconds(5),
            status_header: true,
            key: KeyConfig::default(),
            bypass: BypassConfig::default(),
        }
    }
}

/// Configuration of the key.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyConfig {
    /// Whether the host is part of the key.
    pub host: bool,
    /// Which part of the query is in the key.
    pub query: QueryConfig,
    /// With `query: only`: the parameters.
    pub parameters: Vec<String>,
    /// Request headers that are part of the key.
    pub headers: Vec<String>,
    /// Cookies that are part of the key.
    pub cookies: Vec<String>,
}

impl Default for KeyConfig {
    fn default() -> Self {
        Self { host: true, query: QueryConfig::Whole, parameters: Vec::new(), headers: Vec::new(), cookies: Vec::new() }
    }
}

/// Which part of the query is in the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryConfig {
    /// The query as it is.
    #[default]
    Whole,
    /// All parameters, sorted by name.
    Sorted,
    /// Without parameters of advertising and analytics.
    WithoutTracking,
    /// Only `parameters`.
    Only,
    /// Nothing.
    None,
}

/// Configuration of requests that use no cache.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BypassConfig {
    /// Headers whose presence bypasses the cache.
    pub headers: Vec<String>,
    /// Cookies whose presence bypasses the cache.
    pub cookies: Vec<String>,
    /// Query parameters whose presence bypasses the cache.
    pub query: Vec<String>,
}

/// The checked cache of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Where responses are stored.
    pub store: StoreKind,
    /// What is stored, and for how long.
    pub rules: Rules,
    /// Whether HEAD requests use the cache; GET requests always do.
    pub head: bool,
    /// Requests that use no cache.
    pub bypass: Bypass,
    /// The number of requests for a response before it is stored.
    pub minimum_uses: u32,
    /// How long a request waits for a response that another request is fetching.
    pub lock_timeout: Duration,
    /// Whether responses have Cache-Status.
    pub status_header: bool,
    /// Whether the route has its own responses for a URL, because the URL alone does not select it.
    pub is_separate: bool,
}

/// Names for `methods`.
const METHODS: &str = "GET and HEAD can use the cache; write `methods: [GET, HEAD]`";

impl Config {
    /// Checks the block.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Spec {
        for (index, status) in self.statuses.iter().enumerate() {
            if !(200..=599).contains(status) || matches!(status, 206 | 304) {
                let place = place.key("statuses").index(index);
                faults.add(place, format!("{status} is not the status of a response that can be stored"), "remove it");
            }
        }
        self.check_methods(&place.key("methods"), faults);
        if self.minimum_uses == 0 {
            faults.add(place.key("minimum_uses"), "must be at least 1", "1 stores the first response");
        }
        if self.lock_timeout.0.is_zero() {
            faults.add(place.key("lock_timeout"), "must be greater than zero", "write for example 5s");
        }
        let ttl = |period: Option<Period>| period.map(|period| period.0);
        Spec {
            store: self.store,
            rules: Rules {
                default_ttl: ttl(self.default_ttl),
                max_ttl: ttl(self.max_ttl),
                statuses: self.statuses.clone(),
                negative_ttl: ttl(self.negative_ttl),
                heuristic: self.heuristic,
                set_cookie: self.set_cookie,
                stale_while_revalidate: ttl(self.stale_while_revalidate),
                stale_if_error: Some(self.stale_if_error.0),
                client_directives: self.client_directives,
                max_object_size: self.max_object_size.0,
                key: self.key.check(&place.key("key"), faults),
            },
            head: self.methods.iter().any(|method| method == "HEAD"),
            bypass: self.bypass.check(&place.key("bypass"), faults),
            minimum_uses: self.minimum_uses,
            lock_timeout: self.lock_timeout.0,
            status_header: self.status_header,
            is_separate: false,
        }
    }

    fn check_methods(&self, place: &Place, faults: &mut Faults) {
        for (index, method) in self.methods.iter().enumerate() {
            if method != "GET" && method != "HEAD" {
                faults.add(place.index(index), format!("responses to `{method}` are not stored"), METHODS);
            }
        }
        if !self.methods.iter().any(|method| method == "GET") {
            faults.add(place.clone(), "GET is missing", METHODS);
        }
    }
}

impl KeyConfig {
    fn check(&self, place: &Place, faults: &mut Faults) -> KeyRules {
        if self.parameters.is_empty() == (self.query == QueryConfig::Only) {
            let problem = "`query: only` and `parameters` belong together";
            faults.add(place.key("parameters"), problem, "write `query: only` and `parameters: [page, size]`");
        }
        KeyRules {
            host: self.host,
            query: match self.query {
                QueryConfig::Whole => QueryRule::Whole,
                QueryConfig::Sorted => QueryRule::Sorted,
                QueryConfig::WithoutTracking => QueryRule::WithoutTracking,
                QueryConfig::Only => QueryRule::Only(self.parameters.clone()),
                QueryConfig::None => QueryRule::None,
            },
            headers: header_names(&self.headers, &place.key("headers"), faults),
            cookies: self.cookies.clone(),
        }
    }
}

impl BypassConfig {
    fn check(&self, place: &Place, faults: &mut Faults) -> Bypass {
        Bypass {
            headers: header_names(&self.headers, &place.key("headers"), faults),
            cookies: self.cookies.clone(),
            query: self.query.clone(),
        }
    }
}

fn header_names(names: &[String], place: &Place, faults: &mut Faults) -> Vec<HeaderName> {
    let mut valid = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        match name.parse() {
            Ok(name) => valid.push(name),
            Err(_) => {
                faults.add(place.index(index), format!("`{name}` is not a header name"), "write for example X-User")
            }
        }
    }
    valid
}
