//! Writers of a disk store.

use super::super::entries::{Counters, INCOMPLETE, NO_ROOM, NOT_STORED, PAUSED, TOO_LARGE, WriteLimit};
use super::super::flight::{Flight, Spill, WINDOW};
use super::super::index::Reservation;
use super::super::meta::StoredMeta;
use super::format::{self, BLOCK, CHECKSUM, Head, PREFIX, Prefix};
use super::pool::Share;
use super::{Disk, DiskEntry, occupied, volume};
use async_trait::async_trait;
use bytes::Bytes;
use pingora_cache::eviction::CacheEntryId;
use pingora_cache::storage::{HandleMiss, MissFinishType, MissHandler, streaming_write::U64WriteId};
use pingora_cache::{CacheKey, CacheMeta};
use pingora_error::{Error, ErrorType, OrErr, Result};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot::{self, error::TryRecvError};

/// Bytes that wait in memory before a task writes them. A smaller body is written at its end, in one call.
const BATCH: u64 = 256 * 1024;
/// Bytes in memory from which on the writer waits for the disk.
const BACKLOG: u64 = 4 << 20;
/// The longest wait for the disk. After it, the body is not stored.
const PATIENCE: Duration = Duration::from_secs(2);

/// Starts a write.
pub(super) fn start(disk: &'static Disk, key: &CacheKey, meta: &CacheMeta) -> Result<MissHandler> {
    let limit = meta.extensions().get::<WriteLimit>().cloned();
    let meta = StoredMeta::new(meta);
    let expected = meta.content_length().unwrap_or(0);
    let max_object_size = WriteLimit::within(limit.as_ref(), disk.max_object_size);
    if expected > max_object_size {
        Counters::add(&disk.counters.too_large);
        return Error::e_explain(TOO_LARGE, format!("Content-Length is {expected}"));
    }
    if disk.health.refuses() {
        return Error::e_explain(PAUSED, "the file system failed a moment ago");
    }
    let id = disk.next_id.fetch_add(1, Ordering::Relaxed);
    let flight = Flight::new(key, id, meta, limit);
    let Some(job) = Job::new(disk, flight.clone()) else {
        return Error::e_explain(NOT_STORED, "the header or the key cannot be stored");
    };
    let mut reservation = Reservation::new(&disk.index, id);
    if !reservation.grow(job.space(expected.min(BATCH))) {
        Counters::add(&disk.counters.write_failures);
        return Error::e_explain(NO_ROOM, "too many writes in progress");
    }
    let fixed = job.prefix(0).start();
    disk.flights.add(flight.clone());
    Ok(Box::new(DiskMiss {
        disk,
        flight,
        max_object_size,
        stage: Stage::Idle(Box::new(job)),
        handed: 0,
        fixed,
        reservation,
        tag: id.into(),
    }))
}

/// A temporary file, removed unless it was published.
struct Temporary {
    disk: &'static Disk,
    file: Arc<File>,
    name: Option<String>,
}

impl Temporary {
    fn create(disk: &'static Disk, hash: u128, number: u64) -> io::Result<Self> {
        let (file, name) = disk.volume.create(hash, number)?;
        Ok(Self { disk, file: Arc::new(file), name: Some(name) })
    }

    /// Renames the file to its final name.
    fn publish(&mut self, hash: u128) -> io::Result<()> {
        if let Some(name) = &self.name {
            self.disk.volume.rename(name, &volume::name(hash))?;
            self.name = None;
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            let disk = self.disk;
            disk.writers.remove(move || disk.removed(disk.volume.unlink(&name)));
        }
    }
}

/// The part of a write that runs on threads that may wait for the disk.
struct Job {
    disk: &'static Disk,
    flight: Arc<Flight>,
    key: Vec<u8>,
    slot: Vec<u8>,
    slot_size: u32,
    temporary: Option<Temporary>,
    /// Bytes of the body that this job has.
    taken: u64,
    /// The last block, which is not full yet.
    tail: Vec<u8>,
    /// Encoded bytes to write.
    out: Vec<u8>,
    /// Full blocks so far.
    blocks: u64,
    /// Where `out` belongs in the file.
    offset: u64,
}

impl Job {
    /// `None` if the file format cannot hold the key or the header.
    fn new(disk: &'static Disk, flight: Arc<Flight>) -> Option<Self> {
        let (key, payload) = (format::encode_key(&flight.key), format::encode_meta(&flight.meta)?);
        let slot_size = format::slot_size(payload.len())?;
        let slot = format::encode_slot(1, &payload, slot_size)?;
        if !format::key_fits(&key) {
            return None;
        }
        let (tail, out) = (Vec::new(), Vec::new());
        Some(Self { disk, flight, key, slot, slot_size, temporary: None, taken: 0, tail, out, blocks: 0, offset: 0 })
    }

    fn prefix(&self, body_length: u64) -> Prefix {
        let key_length = self.key.len() as u32;
        Prefix { key_length, slot_size: self.slot_size, body_length, id: self.flight.id }
    }

    /// Space of the file with a body of this length.
    fn space(&self, body_length: u64) -> u64 {
        occupied(self.prefix(body_length).file_length())
    }

    /// Moves the new bytes of the body into blocks.
    fn take(&mut self) {
        if self.out.is_empty() && self.offset == 0 {
            // The prefix stays empty until the body is complete: an unfinished file is never valid.
            self.out.resize(PREFIX as usize, 0);
            self.out.extend_from_slice(&self.key);
            self.out.extend_from_slice(&self.slot);
            self.out.resize(self.prefix(0).start() as usize, 0);
        }
        let chunks = self.flight.from(self.taken);
        let length: usize = chunks.iter().map(Bytes::len).sum();
        self.out.reserve(self.tail.len() + length + (length / BLOCK as usize + 2) * CHECKSUM as usize);
        for mut chunk in chunks {
            self.taken += chunk.len() as u64;
            while !chunk.is_empty() {
                let part = chunk.split_to(chunk.len().min(BLOCK as usize - self.tail.len()));
                self.tail.extend_from_slice(&part);
                if self.tail.len() as u64 == BLOCK {
                    self.close_block();
                }
            }
        }
    }

    fn close_block(&mut self) {
        let checksum = format::checksum(self.flight.id, self.blocks, &self.tail);
        self.out.append(&mut self.tail);
        self.out.extend_from_slice(&checksum.to_le_bytes());
        self.blocks += 1;
    }

    fn write_out(&mut self) -> io::Result<Arc<File>> {
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => Temporary::create(self.disk, self.flight.hash, self.flight.id)?,
        };
        let file = temporary.file.clone();
        self.temporary = Some(temporary);
        self.disk.volume.write(&file, &self.out, self.offset)?;
        self.offset += self.out.len() as u64;
        // A write that waits for more of its body needs no memory for it.
        self.out = Vec::new();
        Ok(file)
    }

    /// Writes the full blocks that there are, and frees their memory.
    fn write(&mut self) -> io::Result<()> {
        self.take();
        let file = self.write_out()?;
        self.flight.spilled(Spill { file, start: self.prefix(0).start(), written: self.blocks * BLOCK });
        Ok(())
    }

    /// Writes the rest and makes the file an entry. `false` if it must not become one.
    fn publish(mut self, mut reservation: Reservation<Arc<DiskEntry>>) -> io::Result<bool> {
        self.take();
        let prefix = self.prefix(self.taken);
        if !self.tail.is_empty() {
            self.close_block();
        }
        let encoded = prefix.encode(&self.key);
        if self.offset == 0 {
            self.out.splice(..encoded.len(), encoded);
            self.write_out()?;
        } else {
            let file = self.write_out()?;
            self.disk.volume.write(&file, &encoded, 0)?;
        }
        let hash = self.flight.hash;
        let _lock = self.disk.index.lock(hash);
        reservation.release();
        let entry = DiskEntry::new(prefix.file_length());
        if self.flight.is_purged() || self.disk.index.largest() < occupied(entry.size) {
            return Ok(false);
        }
        if let Some(temporary) = &mut self.temporary {
            temporary.publish(hash)?;
        }
        Ok(self.disk.index.insert(hash, entry))
    }
}

/// Rewrites the metadata of a stored file. The caller holds the lock of the entry. May block.
///
/// The new metadata goes into the slot that does not count, so a crash leaves one that is valid. If it does not fit,
/// a copy with larger slots replaces the file.
pub(super) fn update(disk: &'static Disk, hash: u128, file: &File, head: &Head, meta: &StoredMeta) -> io::Result<()> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the header cannot be stored");
    let payload = format::encode_meta(meta).ok_or_else(invalid)?;
    let number = head.number + 1;
    if let Some(slot) = format::encode_slot(number, &payload, head.prefix.slot_size) {
        return disk.volume.write(file, &slot, head.prefix.slot(!head.second));
    }
    let slot_size = format::slot_size(payload.len()).ok_or_else(invalid)?;
    let slot = format::encode_slot(number, &payload, slot_size).ok_or_else(invalid)?;
    let prefix = Prefix { slot_size, ..head.prefix };
    let mut start = prefix.encode(&format::encode_key(&head.key));
    start.extend_from_slice(&slot);
    start.resize(prefix.start() as usize, 0);
    let number = disk.next_id.fetch_add(1, Ordering::Relaxed);
    let mut temporary = Temporary::create(disk, hash, number)?;
    disk.volume.write(&temporary.file, &start, 0)?;
    copy(file, head.prefix.start(), &temporary.file, prefix.start())?;
    temporary.publish(hash)?;
    disk.index.insert(hash, DiskEntry::new(prefix.file_length()));
    Ok(())
}

/// Copies the rest of a file in the kernel.
fn copy(mut from: &File, from_offset: u64, mut to: &File, to_offset: u64) -> io::Result<()> {
    from.seek(SeekFrom::Start(from_offset))?;
    to.seek(SeekFrom::Start(to_offset))?;
    io::copy(&mut from, &mut to).map(|_| ())
}

type Running = oneshot::Receiver<(Box<Job>, io::Result<()>)>;

enum Stage {
    Idle(Box<Job>),
    Running(Running),
    /// The body is not stored. The rest of it passes through memory to the readers of this write.
    Unpublished,
}

/// Writer of an entry.
struct DiskMiss {
    disk: &'static Disk,
    flight: Arc<Flight>,
    max_object_size: u64,
    stage: Stage,
    /// Bytes that were given to a job.
    handed: u64,
    /// Bytes of the file before its first block.
    fixed: u64,
    reservation: Reservation<Arc<DiskEntry>>,
    tag: U64WriteId,
}

impl DiskMiss {
    /// Hands bytes to a job; waits if too many are in memory.
    async fn advance(&mut self, length: u64) {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Unpublished) {
                Stage::Idle(mut job) if length - self.handed >= BATCH => {
                    let Some(share) = self.queue() else { return self.unpublish(NOT_STORED) };
                    self.handed = length;
                    self.stage = Stage::Running(self.disk.writers.run(move || {
                        let _share = share;
                        let result = job.write();
                        (job, result)
                    }));
                    return;
                }
                Stage::Running(mut running) => match running.try_recv() {
                    Ok(done) => self.ended(Some(done)),
                    Err(TryRecvError::Closed) => self.ended(None),
                    Err(TryRecvError::Empty) if length - self.handed > BACKLOG => {
                        match tokio::time::timeout(PATIENCE, &mut running).await {
                            Ok(done) => self.ended(done.ok()),
                            Err(_) => self.give_up(&io::Error::new(io::ErrorKind::TimedOut, "the disk is too slow")),
                        }
                    }
                    Err(TryRecvError::Empty) => {
                        self.stage = Stage::Running(running);
                        return;
                    }
                },
                stage => {
                    self.stage = stage;
                    return;
                }
            }
        }
    }

    /// A place in the queue of the threads that write. If there is none, the write is counted as failed.
    fn queue(&self) -> Option<Share> {
        let share = self.disk.backlog.take(self.flight.footprint());
        if share.is_none() {
            Counters::add(&self.disk.counters.write_failures);
        }
        share
    }

    /// A job has ended; `None` if it panicked.
    fn ended(&mut self, done: Option<(Box<Job>, io::Result<()>)>) {
        match done {
            Some((job, Ok(()))) => self.stage = Stage::Idle(job),
            Some((_, Err(error))) => self.give_up(&error),
            None => self.give_up(&io::Error::other("a job of the disk store ended early")),
        }
    }

    /// The file system failed.
    fn give_up(&mut self, error: &io::Error) {
        self.disk.health.report(error, &self.disk.counters, self.disk.volume.path());
        self.unpublish(NOT_STORED);
    }

    /// Removes the temporary file. Readers that are in it have it open.
    fn unpublish(&mut self, cause: ErrorType) {
        self.stage = Stage::Unpublished;
        self.flight.unpublish(cause, WINDOW);
        self.release_unused();
    }

    /// The space of a removed file is free when no reader has it open.
    fn release_unused(&mut self) {
        if !self.flight.is_spilled() {
            self.reservation.release();
        }
    }

    /// Space that the file needs with a body of this length.
    fn space(&self, length: u64) -> u64 {
        occupied(self.fixed + length + length.div_ceil(BLOCK) * CHECKSUM)
    }
}

#[async_trait]
impl HandleMiss for DiskMiss {
    /// An error of the file system is not reported here: the write continues in memory for its readers, and `finish`
    /// returns an error.
    async fn write_body(&mut self, data: Bytes, _: bool) -> Result<()> {
        if !matches!(self.stage, Stage::Unpublished) {
            let length = self.flight.length() + data.len() as u64;
            let (cause, counter) = if length > self.max_object_size {
                (TOO_LARGE, &self.disk.counters.too_large)
            } else if !self.reservation.grow(self.space(length)) {
                (NO_ROOM, &self.disk.counters.write_failures)
            } else {
                self.flight.push(data)?;
                self.advance(length).await;
                return Ok(());
            };
            Counters::add(counter);
            self.unpublish(cause);
        }
        self.flight.pass(data).await?;
        self.release_unused();
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<MissFinishType> {
        // Readers get the end of the body at once, before the file is complete.
        self.flight.complete();
        let Some(length) = self.flight.complete_length() else {
            return Error::e_explain(NOT_STORED, "the write failed before");
        };
        match std::mem::replace(&mut self.stage, Stage::Unpublished) {
            Stage::Running(running) => {
                let done = running.await;
                self.ended(done.ok());
            }
            other => self.stage = other,
        }
        let Stage::Idle(job) = std::mem::replace(&mut self.stage, Stage::Unpublished) else {
            return Error::e_explain(NOT_STORED, "the body is too large, there was no room for it, or the disk failed");
        };
        let Some(share) = self.queue() else {
            return Error::e_explain(NOT_STORED, "too many bodies wait for the disk");
        };
        let reservation = std::mem::replace(&mut self.reservation, Reservation::new(&self.disk.index, self.flight.id));
        let published = self.disk.writers.run(move || {
            let _share = share;
            job.publish(reservation)
        });
        let published = published.await.or_err(NOT_STORED, "a job of the disk store ended early");
        match published? {
            Ok(true) => {
                self.disk.health.succeeded(self.disk.volume.path());
                Ok(MissFinishType::Created(length as usize))
            }
            Ok(false) => Error::e_explain(NOT_STORED, "purged while it was written, or too large for the store"),
            Err(error) => {
                self.give_up(&error);
                Err(Error::because(NOT_STORED, "the file system failed", error))
            }
        }
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(self.tag.as_bytes())
    }

    fn entry_id(&self) -> Option<CacheEntryId> {
        Some(CacheEntryId::new(self.flight.id))
    }
}

impl Drop for DiskMiss {
    fn drop(&mut self) {
        if self.flight.fail(INCOMPLETE) {
            Counters::add(&self.disk.counters.incomplete);
        }
        self.disk.flights.remove(&self.flight);
    }
}
