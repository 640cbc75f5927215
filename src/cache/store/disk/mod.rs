//! Store on disk: one file for each entry, found by its name alone.
//!
//! Nothing is synchronised to the disk. A crash can lose or tear files that were written shortly before; checksums
//! detect a torn file, which is then removed. The index is in memory; a background scan of names and sizes restores it.
//! Until the scan ends, and for ten minutes after the start, a lookup also opens files that the index does not have: a
//! previous process may still write to the directory during an upgrade. A second scan then counts its files. Until
//! then, both processes together may exceed the size.
//!
//! A few threads wait for the disk, however many requests there are. What waits for the threads that write is bounded:
//! beyond the bound, responses are not stored.
//!
//! Errors of the file system never reach clients: a write continues in memory for its readers and is not stored, and
//! further writes are refused for ten seconds.

mod folder;
mod format;
mod health;
mod janitor;
mod pool;
mod read;
mod volume;
mod writer;

pub use folder::check_folder;
pub(super) use read::Body;

use super::entries::{Counters, EntryId, FullKey, Order, Stats, TopEntry, combine, exact_id, hash, rank};
use super::flight::Flights;
use super::index::{Index, Weight};
use super::meta::StoredMeta;
use async_trait::async_trait;
use format::Head;
use health::Health;
use janitor::Task;
use pingora_cache::eviction::CacheEntryId;
use pingora_cache::key::CacheHashKey;
use pingora_cache::storage::{
    HitHandler, MissHandler, PurgeOutcome, PurgeTarget, PurgeType, Storage, streaming_write::U64WriteId,
};
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheKey, CacheMeta};
use pingora_error::{Error, ErrorType, OrErr, Result};
use pool::{Backlog, Pool};
use std::any::Any;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::SystemTime;
use volume::Volume;

/// Unit in which file systems allocate space.
const CLUSTER: u64 = 4096;
/// Most entries that `top` looks at.
const SAMPLE: usize = 100_000;
/// Most files that `top` reads for each entry of its result, since some entries are not listed.
const FILES_PER_ENTRY: usize = 50;

/// Threads that open and read files that the page cache does not have, and change single entries.
const READERS: usize = 8;
/// Threads that write bodies.
const WRITERS: usize = 4;
/// Memory of the bodies that wait for a writer, from which on no more are stored.
const BACKLOG_BYTES: u64 = 16 << 20;
/// Bodies that wait for a writer, from which on no more are stored.
const BACKLOG_WRITES: usize = 1000;

/// Settings of a disk store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory. It is created with mode 0700 if it is missing, and belongs to the store alone.
    pub directory: PathBuf,
    /// Bytes that the files may use, with writes in progress.
    pub size: u64,
    /// Largest body in bytes. An entry can also use at most half of `size`.
    pub max_object_size: u64,
}

/// What the index knows of a file.
struct DiskEntry {
    size: u64,
    hits: AtomicU64,
}

impl DiskEntry {
    fn new(size: u64) -> Arc<Self> {
        Arc::new(Self { size, hits: AtomicU64::new(0) })
    }
}

impl Weight for Arc<DiskEntry> {
    fn weight(&self) -> u64 {
        occupied(self.size)
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }
}

/// Space that a file of this size uses.
fn occupied(size: u64) -> u64 {
    size.checked_next_multiple_of(CLUSTER).unwrap_or(size)
}

/// Store on disk.
pub struct Disk {
    volume: Volume,
    index: Index<Arc<DiskEntry>>,
    flights: Flights,
    max_object_size: u64,
    next_id: AtomicU64,
    counters: Counters,
    corrupt: AtomicU64,
    health: Health,
    readers: &'static Pool,
    writers: &'static Pool,
    backlog: Backlog,
    #[cfg_attr(not(test), expect(dead_code, reason = "it keeps the thread alive; tests send more"))]
    janitor: mpsc::Sender<Task>,
    /// Whether files that the index does not have are looked for.
    adopting: AtomicBool,
    scanning: AtomicBool,
}

impl Disk {
    /// Opens a store that lives as long as the process, and starts the scan of its directory.
    ///
    /// # Errors
    ///
    /// The directory cannot be created or opened, or a thread of the store cannot be started. A directory that cannot
    /// be written to is no error.
    pub fn open(options: &Options) -> io::Result<&'static Self> {
        let random = ahash::RandomState::new();
        let volume = Volume::open(&options.directory, random.hash_one(1_u8) as u32)?;
        let (janitor, tasks) = mpsc::channel();
        let queue = janitor.clone();
        let unlink = move |hash| drop(queue.send(Task::Unlink(hash)));
        let largest = occupied(options.max_object_size.saturating_add(64 * 1024));
        let disk: &'static Self = Box::leak(Box::new(Self {
            volume,
            index: Index::new(options.size, largest, Some(Arc::new(unlink))),
            flights: Flights::default(),
            max_object_size: options.max_object_size,
            next_id: AtomicU64::new(random.hash_one(0_u8)),
            counters: Counters::default(),
            corrupt: AtomicU64::new(0),
            health: Health::new(),
            readers: Pool::start("cache-read", READERS)?,
            writers: Pool::start("cache-write", WRITERS)?,
            backlog: Backlog::new(BACKLOG_BYTES, BACKLOG_WRITES),
            janitor,
            adopting: AtomicBool::new(true),
            scanning: AtomicBool::new(true),
        }));
        std::thread::Builder::new().name("cache-disk".to_owned()).spawn(move || janitor::run(disk, &tasks))?;
        Ok(disk)
    }

    /// Changes the size in bytes. The number of shards does not change.
    pub fn resize(&self, size: u64) {
        self.index.resize(size);
    }

    /// Removes all entries. Writes in progress do not become entries.
    ///
    /// # Errors
    ///
    /// A file cannot be removed.
    pub async fn clear(&'static self) -> Result<()> {
        self.flights.purge_all();
        let cleared = self.blocking(move || {
            self.index.barrier();
            self.index.clear();
            janitor::remove_all(&self.volume)
        });
        cleared.await?.or_err(ErrorType::InternalError, "cannot clear the cache")
    }

    /// The current counters.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.index.fill(&mut stats);
        self.counters.fill(&mut stats);
        stats.corrupt = self.corrupt.load(Ordering::Relaxed);
        stats.paused = self.health.refused();
        stats.scanning = self.scanning.load(Ordering::Acquire);
        stats
    }

    /// The first `n` entries in `order` that `keep` accepts by key and metadata, of at most 100,000. Reads the keys from
    /// the files.
    pub async fn top(
        &'static self,
        n: usize,
        order: Order,
        keep: impl Fn(&[u8], &CacheMeta) -> bool + Send + 'static,
    ) -> Result<Vec<TopEntry>> {
        let facts = |(_, entry): &(u128, Arc<DiskEntry>)| (entry.size, entry.hits.load(Ordering::Relaxed));
        let describe = move |found: (u128, Arc<DiskEntry>)| {
            let (size, hits) = facts(&found);
            let (_, head) = self.load(found.0, false).ok()??;
            let key = head.key.primary.to_vec();
            keep(&key, &head.meta.into_meta()).then_some(TopEntry { key, variance: head.key.variance, size, hits })
        };
        self.blocking(move || {
            let ranked = rank(self.index.sample(SAMPLE), order, facts).into_iter();
            ranked.take(n.saturating_mul(FILES_PER_ENTRY)).filter_map(describe).take(n).collect()
        })
        .await
    }

    /// Opens a file and decodes its head. May block. `InvalidData` if it is damaged.
    fn load(&self, hash: u128, update: bool) -> io::Result<Option<(File, Head)>> {
        let file = match self.volume.open_file(&volume::name(hash), update) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let start = volume::read_rest(&file, 0, vec![0; format::PREFIX as usize], 0)?;
        let prefix = format::Prefix::decode(&start).map_err(damaged)?;
        let head = volume::read_rest(&file, 0, vec![0; prefix.start() as usize], 0)?;
        let head = format::decode_head(prefix, &head.into()).map_err(damaged)?;
        Ok(Some((file, head)))
    }

    /// Removes a file and its entry. The caller holds the lock of the entry. May block.
    fn remove(&self, hash: u128) -> io::Result<()> {
        self.index.remove_if(hash, |_| true);
        self.volume.unlink(&volume::name(hash))
    }

    /// Logs the result of a removal that is not awaited.
    fn removed(&self, result: io::Result<()>) {
        if let Err(error) = result {
            log::debug!("cannot remove a file of the cache in {}: {error}", self.volume.path().display());
        }
    }

    /// Removes the entry that `target` names. May block.
    fn purge_target(&self, hash: u128, variance: Option<[u8; 16]>, id: Option<u64>) -> io::Result<PurgeOutcome> {
        let _lock = self.index.lock(hash);
        let written = self.flights.purge(hash, id);
        let stored = match self.load(hash, false) {
            Ok(Some((_, head))) => {
                Some(head).filter(|head| head.key.variance == variance && id.is_none_or(|id| id == head.prefix.id))
            }
            Ok(None) => None,
            // Nothing in a damaged file is worth keeping.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.remove(hash)?;
                None
            }
            Err(error) => return Err(error),
        };
        if stored.is_some() {
            self.remove(hash)?;
        }
        Ok(match stored.map(|head| head.prefix.id).or(written) {
            Some(id) => PurgeOutcome::Purged(Some(CacheEntryId::new(id))),
            None => PurgeOutcome::NotFound,
        })
    }

    /// Replaces the metadata of the entry that `condition` accepts. May block.
    fn change(
        &'static self,
        hash: u128,
        condition: impl FnOnce(&Head) -> bool,
        meta: impl FnOnce(&Head) -> StoredMeta,
    ) -> io::Result<bool> {
        let _lock = self.index.lock(hash);
        match self.load(hash, true) {
            Ok(Some((file, head))) if condition(&head) => {
                writer::update(self, hash, &file, &head, &meta(&head)).map(|()| true)
            }
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.corrupt.fetch_add(1, Ordering::Relaxed);
                self.remove(hash).map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    /// Runs code that may wait for the disk.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.readers.run(work).await.or_err(ErrorType::InternalError, "a task of the disk store ended early")
    }

    async fn changed(&'static self, change: impl FnOnce() -> io::Result<bool> + Send + 'static) -> Result<bool> {
        self.blocking(change).await?.map_err(|error| {
            // A header that the format cannot hold says nothing about the disk.
            if error.kind() != io::ErrorKind::InvalidInput {
                self.health.report(&error, &self.counters, self.volume.path());
            }
            Error::because(ErrorType::FileWriteError, "cannot update stored metadata", error)
        })
    }
}

#[async_trait]
impl Storage for Disk {
    /// An error means that the file system failed: treat it as a miss.
    async fn lookup(&'static self, key: &CacheKey, _: &SpanHandle) -> Result<Option<(CacheMeta, HitHandler)>> {
        self.find(key).await
    }

    async fn lookup_streaming_write(
        &'static self,
        key: &CacheKey,
        tag: Option<&[u8]>,
        _: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let Some(tag) = tag else { return self.find(key).await };
        match U64WriteId::try_from(tag) {
            Ok(id) => self.find_id(key, id.into()).await,
            Err(_) => Ok(None),
        }
    }

    async fn get_miss_handler(&'static self, key: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<MissHandler> {
        writer::start(self, key, meta)
    }

    async fn purge(&'static self, target: PurgeTarget<'_>, _: PurgeType, _: &SpanHandle) -> Result<PurgeOutcome> {
        let (variance, id) = (target.key().variance_bin(), exact_id(target));
        let hash = combine(target.key().primary_bin(), variance);
        let purged = self.blocking(move || self.purge_target(hash, variance, id)).await?;
        purged.or_err(ErrorType::FileWriteError, "cannot remove a stored file")
    }

    async fn expire(&'static self, target: PurgeTarget<'_>, _: &SpanHandle) -> Result<PurgeOutcome> {
        let (variance, id) = (target.key().variance_bin(), exact_id(target));
        let hash = combine(target.key().primary_bin(), variance);
        let same = move |head: &Head| head.key.variance == variance && id.is_none_or(|id| id == head.prefix.id);
        let expired = |head: &Head| {
            let mut meta = head.meta.clone();
            meta.expire_at(SystemTime::now());
            meta
        };
        match self.changed(move || self.change(hash, same, expired)).await {
            Ok(true) => Ok(PurgeOutcome::Expired),
            Ok(false) => Ok(PurgeOutcome::NotFound),
            // The entry must not stay fresh.
            Err(_) => self
                .blocking(move || self.purge_target(hash, variance, id))
                .await?
                .or_err(ErrorType::FileWriteError, "cannot expire a stored file"),
        }
    }

    /// `false` if the entry is gone, or is not the one that an [`EntryId`] in the extensions of `meta` names.
    async fn update_meta(&'static self, key: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<bool> {
        let id = meta.extensions().get::<EntryId>().copied();
        let (hash, key, meta) = (hash(key), FullKey::new(key), StoredMeta::new(meta));
        let same = move |head: &Head| head.key == key && id.is_none_or(|id| id.0 == head.prefix.id);
        self.changed(move || self.change(hash, same, |_| meta)).await
    }

    fn support_streaming_partial_write(&self) -> bool {
        true
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "bounds_tests.rs"]
mod bounds_tests;
