//! Index of a store: bounds the bytes of entries and of writes in progress, and decides admission and eviction.

use ahash::RandomState;
use parking_lot::{Mutex, MutexGuard};
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bound of the number of shards.
const MAX_SHARDS: u64 = 64;
/// The average entry that the number of remembered evicted keys is based on.
const AVERAGE_ENTRY: u64 = 16 * 1024;
/// Locks that serialise changes of the same entry.
const STRIPES: usize = 64;

/// Shards that a write may choose from; it takes the one with the fewest reserved bytes.
const CHOICES: u128 = 8;
/// Most bytes that a write reserves ahead.
const STEP: u64 = 256 * 1024;

/// Bytes that an entry counts for. They must not change while the entry is in the index.
pub(super) trait Weight {
    fn weight(&self) -> u64;

    /// Whether both are the same object.
    fn same(&self, other: &Self) -> bool;
}

#[derive(Clone)]
enum Slot<V> {
    Entry(V),
    /// Bytes of a write in progress. The index does not evict it.
    Reserved(u64),
}

#[derive(Clone)]
struct Weights;

impl<V: Weight> Weighter<u128, Slot<V>> for Weights {
    fn weight(&self, _: &u128, slot: &Slot<V>) -> u64 {
        match slot {
            Slot::Entry(value) => value.weight().max(1),
            Slot::Reserved(bytes) => (*bytes).max(1),
        }
    }
}

/// What to do with the key of an evicted entry. It runs while a shard is locked.
pub(super) type OnEviction = Arc<dyn Fn(u128) + Send + Sync>;

#[derive(Clone)]
struct Hooks {
    evictions: Arc<AtomicU64>,
    on_eviction: Option<OnEviction>,
}

/// What one change of the index removed. It is dropped after the shard is unlocked.
struct Removed<V> {
    /// The entry that is inserted. The library also reports the entry that it replaces as evicted.
    inserted: Option<(u128, V)>,
    removed: Vec<Slot<V>>,
}

impl<V> Default for Removed<V> {
    fn default() -> Self {
        Self { inserted: None, removed: Vec::new() }
    }
}

impl<V: Weight> Removed<V> {
    fn is_replaced(&self, key: u128, value: &V) -> bool {
        self.inserted.as_ref().is_some_and(|inserted| inserted.0 == key && !inserted.1.same(value))
    }
}

impl<V: Weight> Lifecycle<u128, Slot<V>> for Hooks {
    type RequestState = Removed<V>;

    fn is_pinned(&self, _: &u128, slot: &Slot<V>) -> bool {
        matches!(slot, Slot::Reserved(_))
    }

    fn on_evict(&self, removed: &mut Removed<V>, key: u128, slot: Slot<V>) {
        if let Slot::Entry(value) = &slot
            && !removed.is_replaced(key, value)
        {
            self.evictions.fetch_add(1, Ordering::Relaxed);
            if let Some(on_eviction) = &self.on_eviction {
                on_eviction(key);
            }
        }
        removed.removed.push(slot);
    }
}

/// Index over entries of type `V`.
///
/// Each shard has an equal part of the capacity. Half of it is the most that one entry, and that all writes in
/// progress, may use. So the bound holds at any time: what the writes do not use can always be evicted.
pub(super) struct Index<V> {
    cache: Cache<u128, Slot<V>, Weights, RandomState, Hooks>,
    /// Reserved bytes of each shard.
    reserved: Box<[AtomicU64]>,
    reservations: AtomicU64,
    evictions: Arc<AtomicU64>,
    stripes: Box<[Mutex<()>]>,
}

impl<V: Weight + Clone> Index<V> {
    /// `largest`: weight of the largest entry; shards are large enough for it if `capacity` allows.
    pub(super) fn new(capacity: u64, largest: u64, on_eviction: Option<OnEviction>) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let hooks = Hooks { evictions: evictions.clone(), on_eviction };
        let shards = (capacity / largest.saturating_mul(4).max(1)).clamp(1, MAX_SHARDS);
        // A power of two, rounded down: the library rounds up.
        let shards = 1_u64 << shards.ilog2();
        let items = (capacity / AVERAGE_ENTRY).clamp(64 * shards, 1 << 28) as usize;
        let options = OptionsBuilder::new()
            .shards(shards as usize)
            .estimated_items_capacity(items)
            .weight_capacity(capacity)
            .build();
        let cache = match options {
            Ok(options) => Cache::with_options(options, Weights, RandomState::new(), hooks),
            // Only a missing setting is an error.
            Err(_) => Cache::with(items, capacity, Weights, RandomState::new(), hooks),
        };
        let reserved = (0..cache.num_shards()).map(|_| AtomicU64::new(0)).collect();
        let stripes = (0..STRIPES).map(|_| Mutex::new(())).collect();
        Self { cache, reserved, reservations: AtomicU64::new(0), evictions, stripes }
    }

    /// Most bytes that one entry may have.
    pub(super) fn largest(&self) -> u64 {
        self.cache.shard_capacity() / 2
    }

    /// The entry; counts as a use.
    pub(super) fn get(&self, key: u128) -> Option<V> {
        entry(self.cache.get(&key)?)
    }

    /// The entry; does not count as a use.
    pub(super) fn peek(&self, key: u128) -> Option<V> {
        entry(self.cache.peek(&key)?)
    }

    /// Adds or replaces an entry. `false` if it is too large: then nothing changes.
    pub(super) fn insert(&self, key: u128, value: V) -> bool {
        if value.weight() > self.largest() {
            return false;
        }
        let mut removed = Removed { inserted: Some((key, value.clone())), removed: Vec::new() };
        self.cache.insert_with_lifecycle(key, Slot::Entry(value), &mut removed);
        true
    }

    /// Removes the entry if `condition` holds.
    pub(super) fn remove_if(&self, key: u128, condition: impl FnOnce(&V) -> bool) -> Option<V> {
        let removed = self.cache.remove_if(&key, |slot| match slot {
            Slot::Entry(value) => condition(value),
            Slot::Reserved(_) => false,
        })?;
        entry(removed.1)
    }

    /// Removes all entries, and keeps the reservations of writes in progress.
    pub(super) fn clear(&self) {
        self.cache.retain(|_, slot| matches!(slot, Slot::Reserved(_)));
    }

    /// Changes the capacity; entries beyond it are evicted.
    pub(super) fn resize(&self, capacity: u64) {
        self.cache.set_capacity(capacity);
    }

    /// At most `limit` entries.
    pub(super) fn sample(&self, limit: usize) -> Vec<(u128, V)> {
        self.cache.iter().filter_map(|(key, slot)| Some((key, entry(slot)?))).take(limit).collect()
    }

    pub(super) fn fill(&self, stats: &mut super::entries::Stats) {
        stats.entries = (self.cache.len() as u64).saturating_sub(self.reservations.load(Ordering::Relaxed));
        stats.bytes = self.cache.weight();
        stats.capacity = self.cache.capacity();
        stats.evictions = self.evictions.load(Ordering::Relaxed);
    }

    /// Serialises changes of the entry `key`: a write that ends, a purge, an update of the metadata.
    pub(super) fn lock(&self, key: u128) -> Option<MutexGuard<'_, ()>> {
        self.stripes.get(key as usize % STRIPES).map(Mutex::lock)
    }

    /// Waits for the changes in progress of all entries.
    pub(super) fn barrier(&self) {
        self.stripes.iter().for_each(|stripe| drop(stripe.lock()));
    }

    fn take(&self, shard: usize, bytes: u64) -> bool {
        let limit = self.largest();
        self.reserved.get(shard).is_some_and(|reserved| {
            reserved
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                    now.checked_add(bytes).filter(|sum| *sum <= limit)
                })
                .is_ok()
        })
    }
}

fn entry<V>(slot: Slot<V>) -> Option<V> {
    match slot {
        Slot::Entry(value) => Some(value),
        Slot::Reserved(_) => None,
    }
}

/// Bytes of a write in progress. They are given back when it is dropped.
pub(super) struct Reservation<V: Weight + Clone + 'static> {
    index: &'static Index<V>,
    key: u128,
    shard: usize,
    bytes: u64,
}

impl<V: Weight + Clone> Reservation<V> {
    /// An empty reservation. `number` is unique in the store.
    pub(super) fn new(index: &'static Index<V>, number: u64) -> Self {
        // The keys of entries are hashes: none of them has this form, except with a negligible probability.
        let choices = (0..CHOICES).map(|choice| u128::from(number) | choice << 64);
        let places = choices.map(|key| (key, index.cache.shard_index(&key)));
        let reserved = |shard: usize| index.reserved.get(shard).map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        let (key, shard) = places.min_by_key(|(_, shard)| reserved(*shard)).unwrap_or_default();
        Self { index, key, shard, bytes: 0 }
    }

    /// Makes sure that at least `wanted` bytes are reserved. `false` if there is no room.
    pub(super) fn grow(&mut self, wanted: u64) -> bool {
        if wanted <= self.bytes {
            return true;
        }
        // Larger steps bound the number of locks that a long body takes.
        let ahead = wanted.max(self.bytes.saturating_mul(2).min(wanted.saturating_add(STEP)));
        let target = if self.index.take(self.shard, ahead - self.bytes) {
            ahead
        } else if self.index.take(self.shard, wanted - self.bytes) {
            wanted
        } else {
            return false;
        };
        if self.bytes == 0 {
            self.index.reservations.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes = target;
        self.index.cache.insert(self.key, Slot::Reserved(target));
        true
    }

    /// Gives back what exceeds `wanted` bytes, if that is much.
    pub(super) fn shrink(&mut self, wanted: u64) {
        let target = wanted.max(1);
        if self.bytes < target.saturating_add(STEP) {
            return;
        }
        self.index.cache.insert(self.key, Slot::Reserved(target));
        if let Some(reserved) = self.index.reserved.get(self.shard) {
            reserved.fetch_sub(self.bytes - target, Ordering::Relaxed);
        }
        self.bytes = target;
    }

    /// Gives the bytes back.
    pub(super) fn release(&mut self) {
        if self.bytes == 0 {
            return;
        }
        self.index.cache.remove(&self.key);
        self.index.reservations.fetch_sub(1, Ordering::Relaxed);
        if let Some(reserved) = self.index.reserved.get(self.shard) {
            reserved.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.bytes = 0;
    }
}

impl<V: Weight + Clone> Drop for Reservation<V> {
    fn drop(&mut self) {
        self.release();
    }
}
