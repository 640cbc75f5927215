//! Endpoints for what the caches did, and for the stored responses.

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache_purge::stores;
use super::context::Api;
use super::input::Query;
use super::problem::{Cause, Problem};
use crate::base::units::RouteName;
use crate::cache::store::{Order, TopEntry};
use crate::cache::{Cache, Counters, Outcome, RouteCache, StoreKind, key};

/// The most objects that a call lists.
const TOP_MAX: usize = 1000;

/// The caches of routes, and the stores.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CacheState {
    /// The routes with a cache, in the order of the configuration.
    pub routes: Vec<CacheRoute>,
    /// The open stores.
    pub stores: Vec<CacheStore>,
}

/// What the cache of a route did since the start of the process.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CacheRoute {
    /// The route.
    pub route: RouteName,
    /// Its store.
    pub store: StoreKind,
    /// The share of requests that needed no backend, from 0 to 1.
    pub hit_ratio: f64,
    /// The requests.
    pub requests: CacheRequests,
    /// Bytes of bodies that no backend had to send.
    pub bytes_saved: u64,
    /// The mean age of responses from the cache, in seconds.
    pub mean_age: u64,
}

/// Requests by how they used the cache; the names are those in the access log.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct CacheRequests {
    /// All.
    pub total: u64,
    /// A fresh stored response.
    pub hit: u64,
    /// A stale stored response.
    pub stale: u64,
    /// A stored response after a validation.
    pub revalidated: u64,
    /// The response was fetched and stored.
    pub miss: u64,
    /// A response that another request fetched.
    pub collapsed: u64,
    /// The response was fetched and not stored.
    pub unstored: u64,
    /// The request did not use the cache.
    pub bypass: u64,
    /// The client wanted a stored response, and there is none.
    pub only_if_cached: u64,
}

/// A store.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CacheStore {
    /// The store.
    pub store: StoreKind,
    /// Its folder; missing for the store in memory.
    pub folder: Option<String>,
    /// Bytes in use, with purged responses that are not removed yet.
    pub bytes: u64,
    /// The most bytes that it uses.
    pub capacity: u64,
    /// Stored responses, and records of the headers that select a variant.
    pub entries: u64,
    /// Entries that were removed to make room.
    pub evictions: u64,
    /// Responses that were not stored because the store had no room or failed.
    pub write_failures: u64,
    /// Responses that were not stored because of their size.
    pub too_large: u64,
    /// Responses that were not stored because they were incomplete.
    pub incomplete: u64,
    /// Stored files that were damaged.
    pub corrupt: u64,
    /// Responses that were not stored during a pause after a failure of the disk.
    pub paused: u64,
    /// Whether the folder is still being read after the start, so that `entries` and `bytes` are too small.
    pub scanning: bool,
    /// Purges that are remembered one by one.
    pub purges: usize,
}

/// Which objects to list.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheTopQuery {
    /// The store; by default all.
    pub store: Option<StoreKind>,
    /// The order; by default `size`.
    pub by: CacheOrder,
    /// How many, at most 1000; by default 20.
    pub n: Option<usize>,
}

/// The order of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheOrder {
    /// The largest first.
    #[default]
    Size,
    /// The most requested first.
    Hits,
}

/// The largest or most requested objects.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CacheTop {
    /// The objects. A store with more than 100,000 entries is represented by that many.
    pub objects: Vec<CacheObject>,
}

/// A stored response.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CacheObject {
    /// The store.
    pub store: StoreKind,
    /// Its key in a form for people.
    pub key: String,
    /// Identifies the variant; missing if the response has no variants.
    pub variant: Option<String>,
    /// Bytes that it uses in the store.
    pub size: u64,
    /// Uses since it was stored, or since the start of the process.
    pub hits: u64,
}

impl CacheRoute {
    fn of(cache: &RouteCache) -> Self {
        let counters = &cache.counters;
        Self {
            route: cache.name.clone(),
            store: cache.spec.store,
            hit_ratio: (counters.hit_ratio() * 1e4).round() / 1e4,
            requests: CacheRequests::of(counters),
            bytes_saved: counters.bytes_saved(),
            mean_age: counters.mean_age(),
        }
    }
}

impl CacheRequests {
    fn of(counters: &Counters) -> Self {
        Self {
            total: counters.total(),
            hit: counters.get(Outcome::Hit),
            stale: counters.get(Outcome::Stale),
            revalidated: counters.get(Outcome::Revalidated),
            miss: counters.get(Outcome::Miss),
            collapsed: counters.get(Outcome::Collapsed),
            unstored: counters.get(Outcome::Unstored),
            bypass: counters.get(Outcome::Bypass),
            only_if_cached: counters.get(Outcome::OnlyIfCached),
        }
    }
}

impl CacheStore {
    fn of(store: StoreKind, cache: &Cache) -> Self {
        let stats = cache.stats();
        Self {
            store,
            folder: cache.folder().map(|folder| folder.display().to_string()),
            bytes: stats.bytes,
            capacity: stats.capacity,
            entries: stats.entries,
            evictions: stats.evictions,
            write_failures: stats.write_failures,
            too_large: stats.too_large,
            incomplete: stats.incomplete,
            corrupt: stats.corrupt,
            paused: stats.paused,
            scanning: stats.scanning,
            purges: cache.purges.len(),
        }
    }
}

impl CacheObject {
    fn of(store: StoreKind, entry: &TopEntry) -> Self {
        let hex = |variance: [u8; 16]| format!("{:032x}", u128::from_be_bytes(variance));
        let (size, hits) = (entry.size, entry.hits);
        Self { store, key: key::readable(&entry.key), variant: entry.variance.map(hex), size, hits }
    }
}

pub(super) async fn state(api: Api, (): ()) -> Result<CacheState, Problem> {
    let snapshot = api.live.snapshot.load_full();
    let routes = snapshot.routes.iter().filter_map(|(_, route)| route.cache.as_deref());
    let open = StoreKind::ALL.into_iter().filter_map(|kind| Some((kind, snapshot.caches.get(kind)?)));
    Ok(CacheState {
        routes: routes.map(CacheRoute::of).collect(),
        stores: open.map(|(kind, cache)| CacheStore::of(kind, &cache)).collect(),
    })
}

pub(super) async fn top(api: Api, Query(wanted): Query<CacheTopQuery>) -> Result<CacheTop, Problem> {
    let n = wanted.n.unwrap_or(20);
    if n > TOP_MAX {
        return Err(Problem::new(Cause::Malformed, format!("`n` is {n}; at most {TOP_MAX} objects are listed")));
    }
    let order = match wanted.by {
        CacheOrder::Size => Order::Size,
        CacheOrder::Hits => Order::Hits,
    };
    let stores = stores(&api.live.snapshot.load(), wanted.store)?;
    let mut objects = Vec::new();
    for (kind, cache) in stores {
        let entries = cache.top(n, order).await.map_err(|e| api.failed(e.to_string()))?;
        objects.extend(entries.iter().map(|entry| CacheObject::of(kind, entry)));
    }
    objects.sort_by_key(|object| {
        let facts = (object.size, object.hits);
        Reverse(if order == Order::Hits { (facts.1, facts.0) } else { facts })
    });
    objects.truncate(n);
    Ok(CacheTop { objects })
}
