//! What both stores share: errors, counters, and the identity of entries.

use pingora_cache::eviction::CacheEntryId;
use pingora_cache::key::{CacheHashKey, HashBinary};
use pingora_cache::storage::PurgeTarget;
use pingora_cache::{CacheKey, CacheMeta};
use pingora_error::{Error, ErrorType, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// The body is larger than `max_object_size`.
pub const TOO_LARGE: ErrorType = ErrorType::Custom("CacheTooLarge");
/// Writes in progress use all the room that the store gives them.
pub const NO_ROOM: ErrorType = ErrorType::Custom("CacheNoRoom");
/// `finish` returns it: the body is complete, and its readers have all of it, but no entry was created.
pub const NOT_STORED: ErrorType = ErrorType::Custom("CacheNotStored");
/// The writer of the entry ended before the body was complete.
pub const INCOMPLETE: ErrorType = ErrorType::Custom("CacheIncomplete");
/// A stored file failed its checksum. The entry is removed.
pub const CORRUPT: ErrorType = ErrorType::Custom("CacheCorrupt");
/// The disk store pauses writes after an error of the file system.
pub const PAUSED: ErrorType = ErrorType::Custom("CachePaused");

/// Sum of the counters of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Complete entries.
    pub entries: u64,
    /// Bytes in use, with the bytes that are reserved for writes in progress.
    pub bytes: u64,
    /// Upper bound of `bytes`.
    pub capacity: u64,
    /// Entries that were removed to make room.
    pub evictions: u64,
    /// Writes that failed because of the store: no room, too many wait for the disk, or an error of the file system.
    pub write_failures: u64,
    /// Bodies that were not stored because they are too large.
    pub too_large: u64,
    /// Writes that were dropped before the body was complete.
    pub incomplete: u64,
    /// Stored files that failed a checksum.
    pub corrupt: u64,
    /// Writes that were refused while the disk store pauses.
    pub paused: u64,
    /// Whether the disk store still reads its directory.
    pub scanning: bool,
}

/// Order of `top` of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Most hits first.
    Hits,
    /// Largest first.
    Size,
}

/// One entry in the list of the largest or most requested entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopEntry {
    /// Primary bytes of the key.
    pub key: Vec<u8>,
    /// Variance of the key.
    pub variance: Option<HashBinary>,
    /// Bytes that the entry uses.
    pub size: u64,
    /// Hits since the entry was written, or since the start of the process.
    pub hits: u64,
}

/// Restricts `update_meta` to one entry: the caller inserts it into the extensions of the new metadata, with the value
/// of `HandleHit::entry_id` of the hit that was validated. Without it, a response that was stored since the hit would
/// get the header of the older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId(pub u64);

/// The limit of one write. The caller of `get_miss_handler` inserts it into the extensions of the metadata.
#[derive(Clone)]
pub struct WriteLimit {
    /// Largest body in bytes; the store may allow less.
    pub max_object_size: u64,
    /// Runs once if the body turns out to be one that cannot be stored, before lookups stop to find the write.
    pub on_unpublished: Arc<dyn Fn() + Send + Sync>,
}

impl WriteLimit {
    /// The largest body of a write in a store that allows `max_object_size`.
    pub(super) fn within(limit: Option<&Self>, max_object_size: u64) -> u64 {
        limit.map_or(max_object_size, |limit| limit.max_object_size.min(max_object_size))
    }
}

/// `CacheMeta::updated`, in the extensions of a `CacheMeta`, if it differs from `created`.
#[derive(Clone, Copy)]
pub(super) struct Updated(pub(super) SystemTime);

/// When the stored response was last validated. Pingora's `CacheMeta::updated` cannot be restored by a store.
pub fn updated(meta: &CacheMeta) -> SystemTime {
    meta.extensions().get::<Updated>().map_or_else(|| meta.updated(), |updated| updated.0)
}

/// Counters that both stores have.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) write_failures: AtomicU64,
    pub(super) too_large: AtomicU64,
    pub(super) incomplete: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fill(&self, stats: &mut Stats) {
        stats.write_failures = self.write_failures.load(Ordering::Relaxed);
        stats.too_large = self.too_large.load(Ordering::Relaxed);
        stats.incomplete = self.incomplete.load(Ordering::Relaxed);
    }
}

/// The part of a cache key that identifies an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FullKey {
    pub(super) primary: Box<[u8]>,
    pub(super) variance: Option<HashBinary>,
}

impl FullKey {
    pub(super) fn new(key: &CacheKey) -> Self {
        Self { primary: key.primary_key().into(), variance: key.get_variance_key().copied() }
    }

    pub(super) fn is(&self, key: &CacheKey) -> bool {
        *self.primary == *key.primary_key() && self.variance.as_ref() == key.get_variance_key()
    }
}

/// Key of the index: combines two Blake2b hashes, so it needs no further hash on a hit. Entries whose hashes collide
/// replace each other.
pub(super) fn combine(primary: HashBinary, variance: Option<HashBinary>) -> u128 {
    let variance = variance.map_or(0, |variance| u128::from_be_bytes(variance).rotate_left(61) | 1);
    u128::from_be_bytes(primary) ^ variance
}

/// [`combine`] for a whole key.
pub(super) fn hash(key: &CacheKey) -> u128 {
    combine(key.primary_bin(), key.get_variance_key().copied())
}

/// Checks a range against the length of a complete body. `end` is exclusive and may exceed the length.
pub(super) fn check_seek(start: u64, length: Option<u64>) -> Result<()> {
    match length {
        Some(length) if start > length || (start == length && length > 0) => {
            Error::e_explain(ErrorType::InternalError, format!("seek to {start} in a body of {length} bytes"))
        }
        _ => Ok(()),
    }
}

/// The identity that an exact target names.
pub(super) fn exact_id(target: PurgeTarget<'_>) -> Option<u64> {
    match target {
        PurgeTarget::Active(_) => None,
        PurgeTarget::Exact(entry) => entry.entry_id().map(CacheEntryId::get),
    }
}

/// Sorts entries by size and hits.
pub(super) fn rank<T>(mut list: Vec<T>, order: Order, facts: impl Fn(&T) -> (u64, u64)) -> Vec<T> {
    list.sort_by_key(|entry| {
        let (size, hits) = facts(entry);
        std::cmp::Reverse(match order {
            Order::Hits => (hits, size),
            Order::Size => (size, hits),
        })
    });
    list
}
