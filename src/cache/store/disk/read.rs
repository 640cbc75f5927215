//! Lookups and readers of a disk store.

use super::super::entries::hash;
use super::super::flight::{Flight, Progress, Reader};
use super::super::hit::{Hit, Source};
use super::format::{self, BLOCK, CHECKSUM, Head, PREFIX, Prefix};
use super::volume::{self, Cached};
use super::{Disk, DiskEntry, occupied};
use bytes::Bytes;
use pingora_cache::storage::HitHandler;
use pingora_cache::{CacheKey, CacheMeta};
use pingora_error::{ErrorType, OrErr, Result};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of the first read. A smaller file is read as a whole.
const FIRST: u64 = 64 * 1024;

/// An open file with the bytes of its first read.
struct Opened {
    hash: u128,
    entry: Arc<DiskEntry>,
    file: Arc<File>,
    head: Bytes,
    prefix: Prefix,
}

impl Disk {
    pub(super) async fn find(&'static self, key: &CacheKey) -> Result<Option<(CacheMeta, HitHandler)>> {
        let hash = hash(key);
        if let Some(found) = self.stored(hash, |head| head.key.is(key)).await? {
            return Ok(Some(found));
        }
        if let Some(found) = self.flights.find(hash, key).and_then(|flight| self.follow(&flight)) {
            return Ok(Some(found));
        }
        // A write may have become an entry between the two lookups; its file is then in the index.
        if self.index.peek(hash).is_some() { self.stored(hash, |head| head.key.is(key)).await } else { Ok(None) }
    }

    pub(super) async fn find_id(&'static self, key: &CacheKey, id: u64) -> Result<Option<(CacheMeta, HitHandler)>> {
        let hash = hash(key);
        if let Some(found) = self.flights.find_id(hash, key, id).and_then(|flight| self.follow(&flight)) {
            return Ok(Some(found));
        }
        self.stored(hash, |head| head.prefix.id == id && head.key.is(key)).await
    }

    fn follow(&'static self, flight: &Arc<Flight>) -> Option<(CacheMeta, HitHandler)> {
        let stored = Stored::Flight(flight.reader()?);
        Some((flight.meta.to_meta(), Hit::boxed(Body { disk: self, stored })))
    }

    async fn stored(
        &'static self,
        hash: u128,
        condition: impl FnOnce(&Head) -> bool + Send,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let Some((head, opened)) = self.open_entry(hash).await? else { return Ok(None) };
        if !condition(&head) {
            return Ok(None);
        }
        Ok(Some((head.meta.into_meta(), Hit::boxed(Body { disk: self, stored: Stored::File(opened) }))))
    }

    /// Opens the file of an entry. `None` if there is none, or if it is damaged.
    async fn open_entry(&'static self, hash: u128) -> Result<Option<(Head, Opened)>> {
        let known = self.index.get(hash);
        if known.is_none() && !self.adopting.load(Ordering::Acquire) {
            return Ok(None);
        }
        let Some(file) = self.open_stored(hash).await? else {
            if let Some(known) = known {
                self.index.remove_if(hash, |entry| Arc::ptr_eq(entry, &known));
            }
            return Ok(None);
        };
        let expected = known.as_ref().map_or(FIRST, |entry| entry.size.min(FIRST));
        let (head, bytes) = match self.read_head(&file, expected).await? {
            Ok(read) => read,
            Err(()) => {
                self.remove_damaged(hash, file).await?;
                return Ok(None);
            }
        };
        let entry = match known {
            Some(entry) if entry.size == head.prefix.file_length() => entry,
            // Another process wrote the file, or the scan did not reach it yet.
            _ => {
                let entry = DiskEntry::new(head.prefix.file_length());
                self.index.insert(hash, entry.clone());
                entry
            }
        };
        entry.hits.fetch_add(1, Ordering::Relaxed);
        let prefix = head.prefix;
        Ok(Some((head, Opened { hash, entry, file, head: bytes, prefix })))
    }

    async fn open_stored(&'static self, hash: u128) -> Result<Option<Arc<File>>> {
        let name = volume::name(hash);
        let opened = match self.volume.open_cached(&name) {
            Ok(file) => return Ok(Some(Arc::new(file))),
            Err(Errno::NOENT) => return Ok(None),
            // The names are not in memory, or the kernel does not know the call.
            Err(_) => self.blocking(move || self.volume.open_file(&name, false)).await?,
        };
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Arc::new).map(Some).or_err(ErrorType::FileOpenError, "cannot open a stored file"),
        }
    }

    /// Removes a file that failed a checksum, unless another one replaced it.
    async fn remove_damaged(&'static self, hash: u128, file: Arc<File>) -> Result<()> {
        self.corrupt.fetch_add(1, Ordering::Relaxed);
        self.blocking(move || {
            let _lock = self.index.lock(hash);
            if self.volume.is_current(&volume::name(hash), &file) {
                drop(self.remove(hash));
            }
        })
        .await
    }

    /// Reads a block and verifies it.
    async fn block(&'static self, place: Place<'_>, number: u64) -> Result<Bytes> {
        let length = BLOCK.min(place.length.saturating_sub(number * BLOCK)) + CHECKSUM;
        let offset = place.start + number * (BLOCK + CHECKSUM);
        let end = offset + length;
        let stored = if end <= place.head.len() as u64 {
            place.head.slice(offset as usize..end as usize)
        } else {
            self.read_at(place.file, offset, length)
                .await
                .or_err(ErrorType::FileReadError, "cannot read a stored file")?
        };
        let complete = stored.len() as u64 == length;
        let verified = if complete { format::verify(place.id, number, stored) } else { Err(format::corrupt("torn")) };
        if verified.is_err() {
            self.remove_damaged(place.hash, place.file.clone()).await?;
        }
        verified
    }

    /// Reads the head of a file, and as much of its body as the first read may have. `Err` if the file is damaged.
    async fn read_head(&self, file: &Arc<File>, expected: u64) -> Result<Result<(Head, Bytes), ()>> {
        let failed = "cannot read a stored file";
        let mut bytes = self.read_at(file, 0, expected.max(PREFIX)).await.or_err(ErrorType::FileReadError, failed)?;
        let Ok(prefix) = Prefix::decode(&bytes) else { return Ok(Err(())) };
        let needed = prefix.file_length().min(FIRST.max(prefix.start()));
        if (bytes.len() as u64) < needed {
            bytes = self.read_at(file, 0, needed).await.or_err(ErrorType::FileReadError, failed)?;
        }
        let whole = if prefix.file_length() > bytes.len() as u64 {
            let length = file.metadata().or_err(ErrorType::FileReadError, failed)?.len();
            bytes.len() as u64 >= needed && length == prefix.file_length()
        } else {
            true
        };
        match format::decode_head(prefix, &bytes) {
            Ok(head) if whole => Ok(Ok((head, bytes))),
            _ => Ok(Err(())),
        }
    }

    /// Reads without a thread if the page cache has the bytes.
    async fn read_at(&self, file: &Arc<File>, offset: u64, length: u64) -> io::Result<Bytes> {
        match volume::read_cached(file, offset, length as usize)? {
            Cached::Done(data) => Ok(data.into()),
            Cached::Partly(data, filled) => {
                let file = file.clone();
                let read = self.readers.run(move || volume::read_rest(&file, offset, data, filled));
                Ok(read.await.map_err(io::Error::other)??.into())
            }
        }
    }
}

/// Where blocks are.
struct Place<'a> {
    hash: u128,
    file: &'a Arc<File>,
    /// Bytes of the file that are in memory.
    head: &'a Bytes,
    start: u64,
    /// Bytes of the body.
    length: u64,
    id: u64,
}

/// Where a reader finds the body.
pub(in crate::cache::store) struct Body {
    disk: &'static Disk,
    stored: Stored,
}

enum Stored {
    File(Opened),
    Flight(Reader),
}

impl Source for Body {
    async fn read(&mut self, start: u64, end: u64) -> Result<Option<Bytes>> {
        let number = start / BLOCK;
        let block = match &mut self.stored {
            Stored::File(opened) => {
                if start >= end.min(opened.prefix.body_length) {
                    return Ok(None);
                }
                let Opened { hash, file, head, prefix, .. } = opened;
                let (start, length, id) = (prefix.start(), prefix.body_length, prefix.id);
                self.disk.block(Place { hash: *hash, file, head, start, length, id }, number).await?
            }
            Stored::Flight(reader) => match reader.read(start, end).await? {
                Progress::Data(data) => return Ok(Some(data)),
                Progress::End => return Ok(None),
                Progress::Spilled(spill) => {
                    let (hash, id, length) = (reader.flight().hash, reader.flight().id, spill.written);
                    let place = Place { hash, file: &spill.file, head: &Bytes::new(), start: spill.start, length, id };
                    self.disk.block(place, number).await?
                }
            },
        };
        let first = number * BLOCK;
        let (from, to) = ((start - first) as usize, (end.min(first + block.len() as u64) - first) as usize);
        Ok((from < to).then(|| block.slice(from..to)))
    }

    fn complete_length(&self) -> Option<u64> {
        match &self.stored {
            Stored::File(opened) => Some(opened.prefix.body_length),
            Stored::Flight(reader) => reader.flight().complete_length(),
        }
    }

    fn weight(&self) -> u64 {
        match &self.stored {
            Stored::File(opened) => occupied(opened.prefix.file_length()),
            Stored::Flight(_) => 0,
        }
    }

    fn id(&self) -> u64 {
        match &self.stored {
            Stored::File(opened) => opened.prefix.id,
            Stored::Flight(reader) => reader.flight().id,
        }
    }

    fn uncount(&self) {
        if let Stored::File(opened) = &self.stored {
            opened.entry.hits.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
