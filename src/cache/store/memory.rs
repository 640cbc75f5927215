//! Store in memory.

use super::entries::{
    Counters, EntryId, FullKey, INCOMPLETE, NO_ROOM, NOT_STORED, Order, Stats, TOO_LARGE, TopEntry, WriteLimit,
    combine, exact_id, hash, rank,
};
use super::flight::{Flight, Flights, Progress, Reader, WINDOW};
use super::hit::{Hit, Source};
use super::index::{Index, Reservation, Weight};
use super::meta::StoredMeta;
use super::pieces::Pieces;
use async_trait::async_trait;
use bytes::Bytes;
use pingora_cache::eviction::CacheEntryId;
use pingora_cache::key::CacheHashKey;
use pingora_cache::storage::{
    HandleMiss, HitHandler, MissFinishType, MissHandler, PurgeOutcome, PurgeTarget, PurgeType, Storage,
    streaming_write::U64WriteId,
};
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheKey, CacheMeta};
use pingora_error::{Error, ErrorType, Result};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Memory that an entry needs besides its key, header and body: index, counters, allocations.
const OVERHEAD: u64 = 320;
/// The window of an unpublished write if the store has no room for the usual one.
const SMALL_WINDOW: u64 = 128 * 1024;
/// Most entries that `top` looks at.
const SAMPLE: usize = 100_000;

/// A complete entry.
pub(super) struct Entry {
    key: FullKey,
    id: u64,
    meta: StoredMeta,
    body: Pieces,
    weight: u64,
    hits: AtomicU64,
}

impl Entry {
    fn new(key: FullKey, id: u64, meta: StoredMeta, body: Pieces) -> Self {
        let weight = weight_without_body(&key, &meta) + body.footprint();
        Self { key, id, meta, body, weight, hits: AtomicU64::new(0) }
    }

    /// The same entry with other metadata.
    fn with_meta(&self, meta: StoredMeta) -> Self {
        let mut entry = Self::new(self.key.clone(), self.id, meta, self.body.clone());
        entry.hits = AtomicU64::new(self.hits.load(Ordering::Relaxed));
        entry
    }
}

fn weight_without_body(key: &FullKey, meta: &StoredMeta) -> u64 {
    OVERHEAD + key.primary.len() as u64 + meta.footprint()
}

impl Weight for Arc<Entry> {
    fn weight(&self) -> u64 {
        self.weight
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }
}

/// Store in memory. Its size includes keys, headers and writes in progress.
pub struct Memory {
    index: Index<Arc<Entry>>,
    flights: Flights,
    max_object_size: u64,
    next_id: AtomicU64,
    counters: Counters,
}

impl Memory {
    /// Creates a store of `size` bytes that lives as long as the process.
    ///
    /// `max_object_size` bounds the body of an entry. An entry can use at most half of `size`; of a store with several
    /// shards, at least twice `max_object_size`.
    pub fn new(size: u64, max_object_size: u64) -> &'static Self {
        Box::leak(Box::new(Self {
            index: Index::new(size, max_object_size, None),
            flights: Flights::default(),
            max_object_size,
            next_id: AtomicU64::new(ahash::RandomState::new().hash_one(0_u8)),
            counters: Counters::default(),
        }))
    }

    /// Changes the size in bytes. The number of shards does not change.
    pub fn resize(&self, size: u64) {
        self.index.resize(size);
    }

    /// Removes all entries. Writes in progress do not become entries.
    pub fn clear(&self) {
        self.flights.purge_all();
        self.index.clear();
    }

    /// The current counters.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.index.fill(&mut stats);
        self.counters.fill(&mut stats);
        stats
    }

    /// The first `n` entries in `order` that `keep` accepts by key and metadata, of at most 100,000.
    pub fn top(&self, n: usize, order: Order, keep: impl Fn(&[u8], &CacheMeta) -> bool) -> Vec<TopEntry> {
        let facts = |(_, entry): &(u128, Arc<Entry>)| (entry.weight, entry.hits.load(Ordering::Relaxed));
        let describe = |found: (u128, Arc<Entry>)| {
            let (size, hits) = facts(&found);
            TopEntry { key: found.1.key.primary.to_vec(), variance: found.1.key.variance, size, hits }
        };
        let ranked = rank(self.index.sample(SAMPLE), order, facts).into_iter();
        ranked.filter(|(_, entry)| keep(&entry.key.primary, &entry.meta.to_meta())).take(n).map(describe).collect()
    }

    fn complete(&self, hash: u128, key: &CacheKey) -> Option<Arc<Entry>> {
        self.index.get(hash).filter(|entry| entry.key.is(key))
    }

    fn find(&self, key: &CacheKey) -> Option<(CacheMeta, HitHandler)> {
        let hash = hash(key);
        if let Some(entry) = self.complete(hash, key) {
            return Some(hit(entry));
        }
        if let Some(found) = self.flights.find(hash, key).as_ref().and_then(follow) {
            return Some(found);
        }
        // A write may have become an entry between the two lookups.
        self.complete(hash, key).map(hit)
    }

    fn find_id(&self, key: &CacheKey, id: u64) -> Option<(CacheMeta, HitHandler)> {
        let hash = hash(key);
        let flight = self.flights.find_id(hash, key, id);
        flight.as_ref().and_then(follow).or_else(|| self.complete(hash, key).filter(|entry| entry.id == id).map(hit))
    }

    /// Replaces the metadata of the entry that `condition` accepts.
    fn change(
        &self,
        hash: u128,
        condition: impl FnOnce(&Entry) -> bool,
        meta: impl FnOnce(&Entry) -> StoredMeta,
    ) -> bool {
        let _lock = self.index.lock(hash);
        match self.index.peek(hash).filter(|entry| condition(entry)) {
            Some(entry) => self.index.insert(hash, Arc::new(entry.with_meta(meta(&entry)))),
            None => false,
        }
    }
}

fn hit(entry: Arc<Entry>) -> (CacheMeta, HitHandler) {
    entry.hits.fetch_add(1, Ordering::Relaxed);
    let meta = entry.meta.to_meta();
    (meta, Hit::boxed(Body::Entry(entry)))
}

fn follow(flight: &Arc<Flight>) -> Option<(CacheMeta, HitHandler)> {
    let reader = flight.reader()?;
    Some((flight.meta.to_meta(), Hit::boxed(Body::Flight(reader))))
}

#[async_trait]
impl Storage for Memory {
    async fn lookup(&'static self, key: &CacheKey, _: &SpanHandle) -> Result<Option<(CacheMeta, HitHandler)>> {
        Ok(self.find(key))
    }

    async fn lookup_streaming_write(
        &'static self,
        key: &CacheKey,
        tag: Option<&[u8]>,
        _: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let Some(tag) = tag else { return Ok(self.find(key)) };
        let id = U64WriteId::try_from(tag).ok().map(u64::from);
        Ok(id.and_then(|id| self.find_id(key, id)))
    }

    async fn get_miss_handler(&'static self, key: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<MissHandler> {
        let limit = meta.extensions().get::<WriteLimit>().cloned();
        let meta = StoredMeta::new(meta);
        let expected = meta.content_length().unwrap_or(0);
        let max_object_size = WriteLimit::within(limit.as_ref(), self.max_object_size);
        if expected > max_object_size {
            Counters::add(&self.counters.too_large);
            return Error::e_explain(TOO_LARGE, format!("Content-Length is {expected}"));
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let flight = Flight::new(key, id, meta, limit);
        let fixed = weight_without_body(&flight.key, &flight.meta);
        let mut reservation = Reservation::new(&self.index, id);
        // A short body then needs one reservation.
        if !reservation.grow(fixed + expected.clamp(1024, 64 * 1024)) {
            Counters::add(&self.counters.write_failures);
            return Error::e_explain(NO_ROOM, "too many writes in progress");
        }
        self.flights.add(flight.clone());
        Ok(Box::new(MemoryMiss { store: self, flight, max_object_size, fixed, reservation, tag: id.into() }))
    }

    async fn purge(&'static self, target: PurgeTarget<'_>, _: PurgeType, _: &SpanHandle) -> Result<PurgeOutcome> {
        let hash = combine(target.key().primary_bin(), target.key().variance_bin());
        let id = exact_id(target);
        let _lock = self.index.lock(hash);
        let written = self.flights.purge(hash, id);
        let variance = target.key().variance_bin();
        let removed =
            self.index.remove_if(hash, |entry| entry.key.variance == variance && id.is_none_or(|id| id == entry.id));
        Ok(match removed.map(|entry| entry.id).or(written) {
            Some(id) => PurgeOutcome::Purged(Some(CacheEntryId::new(id))),
            None => PurgeOutcome::NotFound,
        })
    }

    async fn expire(&'static self, target: PurgeTarget<'_>, _: &SpanHandle) -> Result<PurgeOutcome> {
        let (variance, id) = (target.key().variance_bin(), exact_id(target));
        let expired = self.change(
            combine(target.key().primary_bin(), variance),
            |entry| entry.key.variance == variance && id.is_none_or(|id| id == entry.id),
            |entry| {
                let mut meta = entry.meta.clone();
                meta.expire_at(SystemTime::now());
                meta
            },
        );
        Ok(if expired { PurgeOutcome::Expired } else { PurgeOutcome::NotFound })
    }

    /// `false` if the entry is gone, or is not the one that an [`EntryId`] in the extensions of `meta` names.
    async fn update_meta(&'static self, key: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<bool> {
        let id = meta.extensions().get::<EntryId>().copied();
        let same = |entry: &Entry| entry.key.is(key) && id.is_none_or(|id| id.0 == entry.id);
        Ok(self.change(hash(key), same, |_| StoredMeta::new(meta)))
    }

    fn support_streaming_partial_write(&self) -> bool {
        true
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

/// Where a reader finds the body.
pub(super) enum Body {
    Entry(Arc<Entry>),
    Flight(Reader),
}

impl Source for Body {
    async fn read(&mut self, start: u64, end: u64) -> Result<Option<Bytes>> {
        match self {
            Self::Entry(entry) => Ok(entry.body.read(start, end)),
            Self::Flight(reader) => match reader.read(start, end).await? {
                Progress::Data(data) => Ok(Some(data)),
                Progress::End => Ok(None),
                Progress::Spilled(_) => Error::e_explain(INCOMPLETE, "part of the body is missing"),
            },
        }
    }

    fn complete_length(&self) -> Option<u64> {
        match self {
            Self::Entry(entry) => Some(entry.body.length()),
            Self::Flight(reader) => reader.flight().complete_length(),
        }
    }

    fn weight(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.weight,
            Self::Flight(_) => 0,
        }
    }

    fn id(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.id,
            Self::Flight(reader) => reader.flight().id,
        }
    }

    fn uncount(&self) {
        if let Self::Entry(entry) = self {
            entry.hits.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Writer of an entry.
struct MemoryMiss {
    store: &'static Memory,
    flight: Arc<Flight>,
    max_object_size: u64,
    /// Bytes of the entry besides its body.
    fixed: u64,
    reservation: Reservation<Arc<Entry>>,
    tag: U64WriteId,
}

impl MemoryMiss {
    /// Continues without an entry, within what is reserved.
    fn unpublish(&mut self, cause: ErrorType) {
        let reserved = self.reservation.grow(self.fixed + self.flight.footprint().max(WINDOW));
        self.flight.unpublish(cause, if reserved { WINDOW } else { SMALL_WINDOW });
    }
}

#[async_trait]
impl HandleMiss for MemoryMiss {
    async fn write_body(&mut self, data: Bytes, _: bool) -> Result<()> {
        if !self.flight.is_unpublished() {
            let (length, memory) = self.flight.size_with(&data);
            let counters = &self.store.counters;
            let (cause, counter) = if length > self.max_object_size {
                (TOO_LARGE, &counters.too_large)
            } else if !self.reservation.grow(self.fixed + memory) {
                (NO_ROOM, &counters.write_failures)
            } else {
                return self.flight.push(data);
            };
            Counters::add(counter);
            self.unpublish(cause);
        }
        self.flight.pass(data).await?;
        self.reservation.shrink(self.fixed + self.flight.footprint().max(WINDOW));
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<MissFinishType> {
        if self.flight.complete_length().is_none() {
            self.flight.complete();
        }
        let Some(length) = self.flight.complete_length() else {
            return Error::e_explain(NOT_STORED, "the write failed before");
        };
        if self.flight.is_unpublished() {
            return Error::e_explain(NOT_STORED, "the body is too large, or there was no room for it");
        }
        let body = self.flight.merged();
        let entry = Entry::new(self.flight.key.clone(), self.flight.id, self.flight.meta.clone(), body);
        let _lock = self.store.index.lock(self.flight.hash);
        self.reservation.release();
        if self.flight.is_purged() {
            return Error::e_explain(NOT_STORED, "the entry was purged while it was written");
        }
        if !self.store.index.insert(self.flight.hash, Arc::new(entry)) {
            Counters::add(&self.store.counters.write_failures);
            return Error::e_explain(NOT_STORED, "the entry is too large for the store");
        }
        Ok(MissFinishType::Created(length as usize))
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(self.tag.as_bytes())
    }

    fn entry_id(&self) -> Option<CacheEntryId> {
        Some(CacheEntryId::new(self.flight.id))
    }
}

impl Drop for MemoryMiss {
    fn drop(&mut self) {
        if self.flight.fail(INCOMPLETE) {
            Counters::add(&self.store.counters.incomplete);
        }
        self.store.flights.remove(&self.flight);
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
