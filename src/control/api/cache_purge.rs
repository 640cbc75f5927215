//! The endpoint that purges stored responses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::Api;
use super::input::Body;
use super::problem::{Cause, Problem};
use crate::base::event::Event;
use crate::base::units::Timestamp;
use crate::cache::purge::{Kind, MAX_TAG_LENGTH, Scope};
use crate::cache::{Cache, StoreKind, key};
use crate::decision::example::ExampleRequest;
use crate::decision::snapshot::Snapshot;
use crate::decision::{cache_key, host};

/// What to purge: one of `url`, `prefix`, `tag` and `all`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CachePurge {
    /// The responses to requests for this URL, all variants. Without a scheme, those by HTTP and HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The responses whose URL starts with this, byte by byte. A path concerns all hosts; the scheme does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The responses with this tag in Cache-Tag or Surrogate-Key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// All responses.
    pub all: bool,
    /// Whether the responses are stale instead of gone: they are validated before they are used again, and may be sent if
    /// that fails, as far as `stale_if_error` allows.
    pub soft: bool,
    /// The store; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreKind>,
}

/// What was purged.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CachePurged {
    /// What was purged, as text.
    pub purged: Vec<String>,
    /// Whether the responses are stale instead of gone.
    pub soft: bool,
    /// The stores.
    pub stores: Vec<PurgedStore>,
}

/// What was purged in a store.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PurgedStore {
    /// The store.
    pub store: StoreKind,
    /// Responses that were requested from a backend at this time or before are purged.
    pub at: Timestamp,
    /// Why the purge does not survive a restart; missing if it does.
    pub problem: Option<String>,
}

pub(super) async fn purge(api: Api, Body(wanted): Body<CachePurge>) -> Result<CachePurged, Problem> {
    let snapshot = api.live.snapshot.load_full();
    let stores = stores(&snapshot, wanted.store)?;
    let scopes = scopes(&snapshot, &wanted)?;
    let purged: Vec<String> = scopes.iter().map(words).collect();
    let kind = if wanted.soft { Kind::Soft } else { Kind::Hard };
    // The journal waits for the disk.
    let purging = move || stores.iter().map(|(kind_of, cache)| in_store(*kind_of, cache, &scopes, kind)).collect();
    let stores: Vec<PurgedStore> =
        tokio::task::spawn_blocking(purging).await.map_err(|e| Problem::new(Cause::Failed, e.to_string()))?;
    Event::CachePurged {
        purged: purged.clone(),
        soft: wanted.soft,
        stores: stores.iter().map(|store| store.store.to_string()).collect(),
        saved: stores.iter().all(|store| store.problem.is_none()),
    }
    .announce();
    Ok(CachePurged { purged, soft: wanted.soft, stores })
}

fn in_store(store: StoreKind, cache: &Cache, scopes: &[Scope], kind: Kind) -> PurgedStore {
    let purged = cache.purge(scopes.iter().cloned(), kind, SystemTime::now());
    PurgedStore { store, at: Timestamp(purged.at), problem: purged.saved.err() }
}

/// The open stores that `wanted` selects.
pub(super) fn stores(snapshot: &Snapshot, wanted: Option<StoreKind>) -> Result<Vec<(StoreKind, Arc<Cache>)>, Problem> {
    let kinds = StoreKind::ALL.into_iter().filter(|kind| wanted.is_none_or(|wanted| wanted == *kind));
    let open: Vec<_> = kinds.filter_map(|kind| Some((kind, snapshot.caches.get(kind)?))).collect();
    if open.is_empty() {
        let store = wanted.map_or_else(|| "a cache".to_owned(), |store| format!("the store `{store}`"));
        return Err(Problem::new(Cause::NoCache, format!("no route uses {store}")));
    }
    Ok(open)
}

fn scopes(snapshot: &Snapshot, wanted: &CachePurge) -> Result<Vec<Scope>, Problem> {
    match (&wanted.url, &wanted.prefix, &wanted.tag, wanted.all) {
        (Some(url), None, None, false) => of_url(snapshot, url),
        (None, Some(prefix), None, false) => of_prefix(snapshot, prefix),
        (None, None, Some(tag), false) => of_tag(tag).map(|scope| vec![scope]),
        (None, None, None, true) => Ok(vec![Scope::All]),
        _ => Err(malformed("name one of `url`, `prefix`, `tag` and `all`")),
    }
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(Cause::Malformed, detail)
}

/// The URL keys of all routes that the URL can belong to.
fn of_url(snapshot: &Snapshot, url: &str) -> Result<Vec<Scope>, Problem> {
    let (schemes, rest) = schemes(url);
    if rest.starts_with('/') {
        return Err(malformed(format!("`{url}` has no host; a prefix can be a path alone")));
    }
    let mut keys = BTreeSet::new();
    for scheme in schemes {
        let request = normal_request(snapshot, scheme, rest)?;
        for (matcher, route) in snapshot.routes.iter() {
            let Some(cache) = route.cache.as_ref().filter(|_| matcher.selects(host(&request), request.uri.path()))
            else {
                continue;
            };
            let target = cache_key::target(&request, scheme, cache);
            keys.insert(key::uri_key(&target, &cache.spec.rules.key));
        }
    }
    if keys.is_empty() {
        return Err(Problem::new(Cause::NoCache, format!("no route with a cache matches {url}")));
    }
    Ok(keys.into_iter().map(Scope::Key).collect())
}

fn of_prefix(snapshot: &Snapshot, prefix: &str) -> Result<Vec<Scope>, Problem> {
    if prefix.contains('?') {
        return Err(malformed("a prefix has no query; purge a URL instead"));
    }
    let (schemes, rest) = schemes(prefix);
    if rest.starts_with('/') && rest.len() == prefix.len() {
        let path = normal_request(snapshot, "http", &format!("localhost{rest}"))?.uri.path().to_owned();
        return Ok(vec![Scope::Prefix { host: None, path }]);
    }
    let mut hosts = BTreeSet::new();
    let mut path = String::new();
    for scheme in schemes {
        let request = normal_request(snapshot, scheme, rest)?;
        hosts.insert(key::normal_host(host(&request).unwrap_or_default(), scheme).into_owned());
        request.uri.path().clone_into(&mut path);
    }
    Ok(hosts.into_iter().map(|host| Scope::Prefix { host: Some(host), path: path.clone() }).collect())
}

fn of_tag(tag: &str) -> Result<Scope, Problem> {
    if tag.is_empty() || tag.len() > MAX_TAG_LENGTH || tag.trim() != tag || tag.contains(',') {
        let detail = format!("`{tag}` is not a tag: 1 to {MAX_TAG_LENGTH} bytes without commas, and no spaces around");
        return Err(malformed(detail));
    }
    Ok(Scope::Tag(tag.to_owned()))
}

/// The schemes that a URL stands for, and what follows the scheme.
fn schemes(url: &str) -> (&'static [&'static str], &str) {
    for (start, schemes) in [("http://", &["http"][..]), ("https://", &["https"][..]), ("//", &["http", "https"][..])] {
        if let Some(rest) = url.strip_prefix(start) {
            return (schemes, rest);
        }
    }
    (&["http", "https"], url)
}

/// The request for a URL, with the normalised path that keys have.
fn normal_request(snapshot: &Snapshot, scheme: &str, rest: &str) -> Result<RequestHeader, Problem> {
    let request = ExampleRequest::parse(&format!("{scheme}://{rest}")).map_err(malformed)?;
    request
        .normalised(&snapshot.request_limits)
        .map_err(|rejected| malformed(format!("`{rest}` is not a valid URL: {}", rejected.detail)))
}

/// What a scope concerns, as text.
fn words(scope: &Scope) -> String {
    match scope {
        Scope::All => "all".to_owned(),
        Scope::Key(key) => key::readable(key),
        Scope::Tag(tag) => format!("tag {tag}"),
        Scope::Prefix { host, path } => format!("prefix {}{path}", host.as_deref().unwrap_or("*")),
    }
}
