//! The caches of the process: stores, and what the routes that use a store share.
//!
//! A store implements Pingora's `Storage`. Pingora's `EvictionManager` is not used: the index of a store decides about
//! admission and eviction in one step. Pingora's `HttpCache` is not used either, because it lets the client that fetches
//! a response determine how fast others get it; the states of a request are in `proxy::engine::cached`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::{Error, ErrorType};
use pingora_cache::eviction::{CacheEntryId, CacheEntryKey};
use pingora_cache::key::CacheHashKey;
use pingora_cache::lock::{CacheKeyLock, CacheLock, LockStatus, Locked, ReadLock, WritePermit};
use pingora_cache::storage::{HitHandler, MissHandler, PurgeTarget, PurgeType, Storage};
use pingora_cache::trace::{Span, SpanHandle};
use pingora_cache::{CacheKey, CacheMeta};
use pingora_http::ResponseHeader;

use super::config::{Spec, StoreKind, StoresConfig};
use super::counters::Counters;
use super::key::{self, UriParts};
use super::policy;
use super::purge::{self, Generations, Kind, Scope, Subject, Verdict};
use super::purge_keeper::Keeper;
use super::remembered::{Concerns, Unstorable, Uses};
use super::rules::Rules;
use super::store::disk::{self, Disk};
use super::store::memory::Memory;
use super::store::{self, Order, Stats, TopEntry, WriteLimit};
use super::vary::{self, VaryNames};
use crate::base::units::RouteName;

/// A fetch that takes longer no longer keeps others from fetching.
const LOCK_AGE_MAX: Duration = Duration::from_secs(60);

/// The caches of the process. Empty until they are opened.
#[derive(Default)]
pub struct Caches {
    memory: ArcSwapOption<Cache>,
    disk: ArcSwapOption<Cache>,
}

/// A store, and the state around it.
pub struct Cache {
    store: Store,
    /// The hashes of keys that only this process uses.
    hashers: [ahash::RandomState; 2],
    lock: CacheLock,
    /// What was purged.
    pub purges: Arc<Generations>,
    /// The keys whose responses cannot be stored.
    pub unstorable: Unstorable,
    /// How often responses were requested.
    pub uses: Uses,
    /// Keeps the purges of a store on disk.
    keeper: Option<Keeper>,
}

enum Store {
    Memory(&'static Memory),
    Disk(&'static Disk, PathBuf),
}

/// The cache of a route.
pub struct RouteCache {
    /// The route.
    pub name: RouteName,
    /// The settings.
    pub spec: Spec,
    /// What it did.
    pub counters: Arc<Counters>,
    caches: Arc<Caches>,
}

/// A stored response that was found.
pub struct Found {
    /// Its header, and when it was stored.
    pub meta: CacheMeta,
    /// Its body.
    pub body: HitHandler,
    /// Whether it was purged softly since it was stored: it must be validated.
    pub expired: bool,
}

/// What became of a purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// It concerns responses stored at this time or before.
    pub at: SystemTime,
    /// Whether it survives a restart, or the reason why it does not.
    pub saved: Result<(), String>,
}

impl Caches {
    /// Opens the stores that `kinds` names, and applies the sizes.
    ///
    /// # Errors
    /// If the folder of the store on disk cannot be used.
    pub fn open(&self, config: &StoresConfig, kinds: impl IntoIterator<Item = StoreKind>) -> Result<(), String> {
        for kind in kinds {
            let slot = self.slot(kind);
            let size = config.size(kind).0;
            let store = match slot.load().as_deref().map(|cache| &cache.store) {
                Some(store @ Store::Memory(_)) => {
                    store.resize(size);
                    continue;
                }
                Some(store @ Store::Disk(_, path)) if *path == config.disk.path => {
                    store.resize(size);
                    continue;
                }
                _ if kind == StoreKind::Memory => Store::Memory(Memory::new(size, size / 4)),
                _ => {
                    let path = &config.disk.path;
                    let options = disk::Options { directory: path.clone(), size, max_object_size: size / 4 };
                    let opened = Disk::open(&options);
                    let store = opened.map_err(|e| format!("cannot use {} for the cache: {e}", path.display()))?;
                    Store::Disk(store, path.clone())
                }
            };
            slot.store(Some(Arc::new(Cache::new(store)?)));
        }
        Ok(())
    }

    /// The cache with this kind of store, if it is open.
    #[must_use]
    pub fn get(&self, kind: StoreKind) -> Option<Arc<Cache>> {
        self.slot(kind).load_full()
    }

    fn slot(&self, kind: StoreKind) -> &ArcSwapOption<Cache> {
        match kind {
            StoreKind::Memory => &self.memory,
            StoreKind::Disk => &self.disk,
        }
    }
}

impl RouteCache {
    /// The cache of the route `name`.
    #[must_use]
    pub fn new(name: RouteName, spec: Spec, counters: Arc<Counters>, caches: Arc<Caches>) -> Self {
        Self { name, spec, counters, caches }
    }

    /// The store of the route, with the state around it.
    #[must_use]
    pub fn shared(&self) -> Option<Arc<Cache>> {
        self.caches.get(self.spec.store)
    }
}

impl Store {
    fn resize(&self, bytes: u64) {
        match self {
            Self::Memory(store) => store.resize(bytes),
            Self::Disk(store, _) => store.resize(bytes),
        }
    }

    fn storage(&self) -> &'static (dyn Storage + Sync) {
        match self {
            Self::Memory(store) => *store,
            Self::Disk(store, _) => *store,
        }
    }
}

/// The right to fetch a response. Dropping it lets another request fetch.
pub struct FetchPermit {
    cache: Arc<Cache>,
    key: CacheKey,
    permit: Option<WritePermit>,
}

impl FetchPermit {
    /// Ends the fetch: requests that wait for it continue.
    pub fn release(mut self, status: LockStatus) {
        self.end(status);
    }

    fn end(&mut self, status: LockStatus) {
        if let Some(permit) = self.permit.take() {
            self.cache.lock.release(&self.key, permit, status);
        }
    }
}

impl Drop for FetchPermit {
    fn drop(&mut self) {
        self.end(LockStatus::TransientError);
    }
}

/// Whether a request may fetch a response.
pub enum Turn {
    /// It may.
    Fetch(FetchPermit),
    /// Another request is fetching it.
    Wait(ReadLock),
}

/// A response that is being stored.
pub struct Writing {
    /// Takes the body.
    pub writer: MissHandler,
    /// The stored header.
    pub meta: CacheMeta,
    /// Reads the body while it arrives.
    pub body: HitHandler,
}

impl Cache {
    fn new(store: Store) -> Result<Self, String> {
        let purges = Arc::new(Generations::default());
        let keeper = match &store {
            Store::Memory(_) => None,
            Store::Disk(_, folder) => Some(Keeper::start(folder, &purges)?),
        };
        Ok(Self {
            store,
            hashers: [ahash::RandomState::new(), ahash::RandomState::new()],
            lock: CacheLock::new(LOCK_AGE_MAX),
            purges,
            unstorable: Unstorable::default(),
            uses: Uses::default(),
            keeper,
        })
    }

    /// Purges responses, and makes sure that a restart does not bring them back. May block.
    ///
    /// All purges apply even if they cannot be kept.
    pub fn purge(&self, scopes: impl IntoIterator<Item = Scope>, kind: Kind, now: SystemTime) -> Purged {
        let purges: Vec<_> = scopes.into_iter().map(|scope| self.purges.purge(scope, kind, now)).collect();
        let at = purges.last().map_or(now, |purge| purge.at);
        let saved = self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.keep(&purges));
        Purged { at, saved: saved.map_err(|e| e.to_string()) }
    }

    /// Purges the responses with a key or URI key because of a response to another request. Does not block; the purge is
    /// kept soon after.
    pub fn invalidate(&self, key: &[u8], now: SystemTime) {
        let purge = self.purges.purge_key(key, Kind::Hard, now);
        if let Some(keeper) = &self.keeper {
            keeper.keep_later(purge);
        }
    }

    /// Gives the key its hash; otherwise each use computes the one of Pingora, which costs more than the lookup. Only the
    /// store on disk needs it, for the names of its files. No store relies on different hashes of different keys.
    pub fn identify(&self, key: &mut CacheKey) {
        let hash = match self.store {
            Store::Memory(_) => {
                let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(key.primary_key()));
                (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
            }
            Store::Disk(..) => key.primary_bin(),
        };
        key.set_primary_bin_override(hash);
    }

    /// Looks up the response to a request with these headers. Sets the variant in `key`, if the response has variants.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn lookup(&self, key: &mut CacheKey, request: &HeaderMap) -> pingora::Result<Option<Found>> {
        Ok(self.find(key, request).await?.0)
    }

    /// Like [`Cache::lookup`], with the request headers that select a variant. Counts as no use of the response.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn look(&self, key: &mut CacheKey, request: &HeaderMap) -> pingora::Result<(Option<Found>, VaryNames)> {
        let found = self.find(key, request).await?;
        if let Some(found) = &found.0 {
            store::uncount(&found.body);
        }
        Ok(found)
    }

    async fn find(&self, key: &mut CacheKey, request: &HeaderMap) -> pingora::Result<(Option<Found>, VaryNames)> {
        let storage = self.store.storage();
        key.remove_variance_key();
        let Some((mut meta, mut body)) = storage.lookup(key, &span()).await? else {
            return Ok((None, VaryNames::None));
        };
        let names = variants(&meta).unwrap_or_default();
        if names != VaryNames::None {
            let Some(variance) = vary::variance(&names, request) else { return Ok((None, names)) };
            key.set_variance_key(variance);
            match storage.lookup(key, &span()).await? {
                Some(variant) => (meta, body) = variant,
                None => return Ok((None, names)),
            }
        }
        let found = match verdict(&self.purges, key.primary_key(), &meta) {
            Verdict::Valid => Some(Found { meta, body, expired: false }),
            Verdict::Soft => Some(Found { meta, body, expired: true }),
            Verdict::Gone => None,
        };
        Ok((found, names))
    }

    /// Whether a response of `key` to a request with these headers could not be stored recently.
    #[must_use]
    pub fn is_unstorable(&self, key: &CacheKey, request: &HeaderMap, rules: &Rules, now: Instant) -> bool {
        let key = key.primary_bin();
        policy::concerned(request, rules).any(|concerns| self.unstorable.contains(&key, concerns, now))
    }

    /// The turn of a request that needs a fetch.
    #[must_use]
    pub fn turn(self: &Arc<Self>, key: &CacheKey, stale: bool) -> Turn {
        match self.lock.lock(key, stale) {
            Locked::Write(permit) => {
                Turn::Fetch(FetchPermit { cache: Arc::clone(self), key: key.clone(), permit: Some(permit) })
            }
            Locked::Read(lock) => Turn::Wait(lock),
        }
    }

    /// Starts to store a response of at most `max_object_size` bytes. Sets the variant in `key` by the Vary of the
    /// response.
    ///
    /// If the response becomes too large, or the store has no room for it, the key is remembered as unstorable. Those who
    /// read the response then already still get all of it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn store(
        self: &Arc<Self>,
        key: &mut CacheKey,
        request: &HeaderMap,
        mut meta: CacheMeta,
        max_object_size: u64,
    ) -> pingora::Result<Writing> {
        let storage = self.store.storage();
        self.set_variant(key, request, &meta).await?;
        let on_unpublished = self.remembers_unstorable(key);
        meta.extensions_mut().insert(WriteLimit { max_object_size, on_unpublished });
        let writer = storage.get_miss_handler(key, &meta, &span()).await?;
        let reader = storage.lookup_streaming_write(key, writer.streaming_write_tag(), &span()).await?;
        let (meta, body) = reader.ok_or_else(|| {
            Error::explain(ErrorType::InternalError, "the store lost a response that is being stored")
        })?;
        self.unstorable.forget(&key.primary_bin());
        Ok(Writing { writer, meta, body })
    }

    /// Remembers the key as one whose response cannot be stored, when it is called.
    #[expect(clippy::disallowed_methods, reason = "the response is found to be unstorable now")]
    fn remembers_unstorable(self: &Arc<Self>, key: &CacheKey) -> Arc<dyn Fn() + Send + Sync> {
        let (cache, key) = (Arc::clone(self), key.primary_bin());
        Arc::new(move || cache.unstorable.remember(&key, Concerns::All, Instant::now()))
    }

    /// Sets the variant of a response in `key`, and stores which headers select variants.
    async fn set_variant(&self, key: &mut CacheKey, request: &HeaderMap, meta: &CacheMeta) -> pingora::Result<()> {
        key.remove_variance_key();
        let names = vary::names(meta.headers());
        if names == VaryNames::None {
            return Ok(());
        }
        let storage = self.store.storage();
        let stored = storage.lookup(key, &span()).await?.and_then(|(meta, _)| variants(&meta));
        let all = match stored.as_ref().map(|stored| vary::union(stored, &names)) {
            // The responses before cannot be selected any more: a variance has the names.
            Some(VaryNames::Any) | None => names,
            Some(all) => all,
        };
        if stored.as_ref() != Some(&all) {
            let record = variants_record(&all, meta)?;
            let mut writer = storage.get_miss_handler(key, &record, &span()).await?;
            writer.write_body(Bytes::new(), true).await?;
            writer.finish().await?;
        }
        match vary::variance(&all, request) {
            Some(variance) => key.set_variance_key(variance),
            None => return Error::e_explain(ErrorType::InternalError, "no request selects the response"),
        }
        Ok(())
    }

    /// The first `n` stored responses in `order`, without purged ones, of at most 100,000 entries.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn top(&self, n: usize, order: Order) -> pingora::Result<Vec<TopEntry>> {
        let purges = Arc::clone(&self.purges);
        let keep = move |key: &[u8], meta: &CacheMeta| {
            variants(meta).is_none() && verdict(&purges, key, meta) != Verdict::Gone
        };
        match self.store {
            Store::Memory(store) => Ok(store.top(n, order, keep)),
            Store::Disk(store, _) => store.top(n, order, keep).await,
        }
    }

    /// The counters of the store.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match self.store {
            Store::Memory(store) => store.stats(),
            Store::Disk(store, _) => store.stats(),
        }
    }

    /// The folder of a store on disk.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.store {
            Store::Memory(_) => None,
            Store::Disk(_, folder) => Some(folder),
        }
    }

    /// Replaces the stored header of `key` after a validation.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn update(&self, key: &CacheKey, meta: &CacheMeta) -> pingora::Result<bool> {
        self.store.storage().update_meta(key, meta, &span()).await
    }

    /// Removes the response of `key`, if it is still the one with the identity in the extensions of `meta`.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn remove(&self, key: &CacheKey, meta: &CacheMeta) -> pingora::Result<()> {
        let id = meta.extensions().get::<store::EntryId>().map(|id| CacheEntryId::new(id.0));
        let entry = CacheEntryKey::from_entry_id(key.to_compact(), id);
        self.store.storage().purge(PurgeTarget::Exact(&entry), PurgeType::Invalidation, &span()).await.map(drop)
    }
}

/// Whether the response with this key was purged since it was stored.
fn verdict(purges: &Generations, key: &[u8], meta: &CacheMeta) -> Verdict {
    if purges.is_empty() {
        return Verdict::Valid;
    }
    let UriParts { uri, host, path } = key::uri_parts(key);
    let subject = Subject { key, uri, host, path, stored_at: store::updated(meta) };
    purges.verdict(&subject, purge::tags(meta.headers()))
}

/// Tracing of Pingora, which is not used.
fn span() -> SpanHandle {
    Span::inactive().handle()
}

/// The status of a record that lists the headers which select variants. No response with it is stored.
const RECORD: StatusCode = StatusCode::CONTINUE;

/// The headers that select a variant, if `meta` is a record of them.
fn variants(meta: &CacheMeta) -> Option<VaryNames> {
    (meta.response_header().status == RECORD).then(|| vary::names(meta.headers()))
}

/// A record of the headers that select a variant of the response with `meta`.
fn variants_record(names: &VaryNames, meta: &CacheMeta) -> pingora::Result<CacheMeta> {
    let mut head = ResponseHeader::build_no_case(RECORD, Some(1))?;
    let VaryNames::Names(names) = names else {
        return Error::e_explain(ErrorType::InternalError, "no header selects a variant");
    };
    let names: Vec<&str> = names.iter().map(http::HeaderName::as_str).collect();
    head.insert_header(http::header::VARY, names.join(","))?;
    // Variants expire by themselves.
    let fresh_until = meta.created() + Duration::from_secs(365 * 24 * 3600);
    Ok(CacheMeta::new(fresh_until, meta.created(), 0, 0, head))
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
