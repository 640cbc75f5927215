//! Writes in progress, and how readers follow them.

use super::entries::{FullKey, INCOMPLETE, WriteLimit, hash};
use super::meta::StoredMeta;
use super::pieces::Pieces;
use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::Mutex;
use pingora_cache::CacheKey;
use pingora_error::{BError, Error, ErrorType};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Memory of an unpublished write from which on its writer waits for the slowest reader.
pub(super) const WINDOW: u64 = 1 << 20;

/// The start of a body that is on disk already, and no longer in memory.
#[derive(Clone)]
pub(super) struct Spill {
    pub(super) file: Arc<File>,
    /// Offset of the first block in the file.
    pub(super) start: u64,
    /// Bytes of the body in complete blocks.
    pub(super) written: u64,
}

/// What a reader gets.
pub(super) enum Progress {
    Data(Bytes),
    /// The bytes are in the file.
    Spilled(Spill),
    /// The body is complete, and the reader has all of it.
    End,
}

#[derive(Clone)]
enum End {
    Complete,
    Failed(ErrorType),
}

impl End {
    fn error(&self) -> BError {
        match self {
            Self::Complete => Error::explain(INCOMPLETE, "the body was complete before"),
            Self::Failed(cause) => Error::explain(cause.clone(), "the write of this entry failed"),
        }
    }
}

/// Where the readers of a write are: what they have read so far, and how many have read that much.
#[derive(Default)]
struct Positions(BTreeMap<u64, usize>);

impl Positions {
    fn add(&mut self, position: u64) {
        *self.0.entry(position).or_default() += 1;
    }

    fn remove(&mut self, position: u64) {
        if let Some(readers) = self.0.get_mut(&position) {
            *readers -= 1;
            if *readers == 0 {
                self.0.remove(&position);
            }
        }
    }

    /// Where the slowest reader is.
    fn slowest(&self) -> Option<u64> {
        self.0.keys().next().copied()
    }
}

/// How a write continues that no longer becomes an entry.
struct Unpublished {
    cause: ErrorType,
    /// Memory from which on the writer waits.
    window: u64,
}

#[derive(Default)]
struct State {
    pieces: Pieces,
    spill: Option<Spill>,
    end: Option<End>,
    readers: Positions,
    unpublished: Option<Unpublished>,
}

impl State {
    /// Frees what all readers of an unpublished write have read.
    fn free(&mut self) {
        if self.unpublished.is_some() {
            let read = self.readers.slowest().unwrap_or(u64::MAX);
            self.pieces.release(read);
            self.spill.take_if(|spill| spill.written <= read);
        }
    }
}

/// A write in progress. The writer appends, and wakes the readers that wait. It waits for them only if the write is
/// unpublished.
pub(super) struct Flight {
    pub(super) hash: u128,
    pub(super) key: FullKey,
    pub(super) id: u64,
    pub(super) meta: StoredMeta,
    limit: Option<WriteLimit>,
    state: Mutex<State>,
    changed: Notify,
    /// A reader of an unpublished write went on or left.
    consumed: Notify,
    /// Lookups by key do not find it.
    hidden: AtomicBool,
    /// It must not become an entry.
    purged: AtomicBool,
}

impl Flight {
    pub(super) fn new(key: &CacheKey, id: u64, meta: StoredMeta, limit: Option<WriteLimit>) -> Arc<Self> {
        Arc::new(Self {
            hash: hash(key),
            key: FullKey::new(key),
            id,
            meta,
            limit,
            state: Mutex::default(),
            changed: Notify::new(),
            consumed: Notify::new(),
            hidden: AtomicBool::new(false),
            purged: AtomicBool::new(false),
        })
    }

    /// Appends to the body. Fails if the write has ended: nothing may follow bytes that were refused.
    pub(super) fn push(&self, data: Bytes) -> Result<(), BError> {
        let mut state = self.state.lock();
        if let Some(end) = &state.end {
            return Err(end.error());
        }
        state.pieces.push(data);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// A reader of the body from its start. `None` if that may be gone already.
    pub(super) fn reader(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.state.lock();
        if state.unpublished.is_some() {
            return None;
        }
        state.readers.add(0);
        Some(Reader { flight: self.clone(), position: 0 })
    }

    /// Keeps the write from becoming an entry, for its attached readers alone.
    pub(super) fn unpublish(&self, cause: ErrorType, window: u64) {
        if let Some(limit) = &self.limit {
            (limit.on_unpublished)();
        }
        self.purge();
        let mut state = self.state.lock();
        state.unpublished = Some(Unpublished { cause, window });
        state.free();
    }

    pub(super) fn is_unpublished(&self) -> bool {
        self.state.lock().unpublished.is_some()
    }

    /// Appends to the body of an unpublished write, as soon as its readers have read enough. Fails if there are none.
    pub(super) async fn pass(&self, data: Bytes) -> Result<(), BError> {
        while !self.has_room()? {
            self.consumed.notified().await;
        }
        self.push(data)
    }

    fn has_room(&self) -> Result<bool, BError> {
        let mut state = self.state.lock();
        let State { pieces, end, readers, unpublished: Some(unpublished), .. } = &mut *state else { return Ok(true) };
        if readers.slowest().is_none() {
            return Err(end.get_or_insert_with(|| End::Failed(unpublished.cause.clone())).error());
        }
        Ok(pieces.footprint() <= unpublished.window)
    }

    /// Memory of the body.
    pub(super) fn footprint(&self) -> u64 {
        self.state.lock().pieces.footprint()
    }

    /// Whether readers need the file.
    pub(super) fn is_spilled(&self) -> bool {
        self.state.lock().spill.is_some()
    }

    /// Bytes of the body so far.
    pub(super) fn length(&self) -> u64 {
        self.state.lock().pieces.length()
    }

    /// Length and memory of the body after `data` is added.
    pub(super) fn size_with(&self, data: &Bytes) -> (u64, u64) {
        let state = self.state.lock();
        (state.pieces.length() + data.len() as u64, state.pieces.footprint_with(data))
    }

    /// Ends the body. Readers that have all of it get its end.
    pub(super) fn complete(&self) {
        self.end(End::Complete);
    }

    /// Ends the write without a complete body, if it has not ended yet.
    pub(super) fn fail(&self, cause: ErrorType) -> bool {
        self.hide();
        self.end(End::Failed(cause))
    }

    fn end(&self, end: End) -> bool {
        let mut state = self.state.lock();
        let first = state.end.is_none();
        if first {
            state.end = Some(end);
        }
        drop(state);
        self.changed.notify_waiters();
        first
    }

    /// Lookups by key do not find it any more. Its readers continue.
    pub(super) fn hide(&self) {
        self.hidden.store(true, Ordering::Release);
    }

    pub(super) fn is_purged(&self) -> bool {
        self.purged.load(Ordering::Acquire)
    }

    fn purge(&self) {
        self.hide();
        self.purged.store(true, Ordering::Release);
    }

    /// Merges the buffers of a body that is complete, and returns a copy of the list.
    pub(super) fn merged(&self) -> Pieces {
        let mut state = self.state.lock();
        state.pieces.merge();
        state.pieces.clone()
    }

    /// Buffers from `start` on, which is the end of a buffer.
    pub(super) fn from(&self, start: u64) -> Vec<Bytes> {
        self.state.lock().pieces.from(start)
    }

    /// Records that blocks are on disk, and frees their memory.
    pub(super) fn spilled(&self, spill: Spill) {
        let mut state = self.state.lock();
        // The pieces of an unpublished write may be gone, and then the file has others in their place.
        if state.unpublished.is_none() {
            state.pieces.release(spill.written);
            state.spill = Some(spill);
        }
    }

    /// Length of the body if it is complete.
    pub(super) fn complete_length(&self) -> Option<u64> {
        let state = self.state.lock();
        matches!(state.end, Some(End::Complete)).then(|| state.pieces.length())
    }

    fn poll(&self, start: u64, end: u64) -> Option<Result<Progress, BError>> {
        let state = self.state.lock();
        if start >= end {
            return Some(Ok(Progress::End));
        }
        if start < state.pieces.length() {
            if let Some(data) = state.pieces.read(start, end) {
                return Some(Ok(Progress::Data(data)));
            }
            let spill = state.spill.clone().filter(|spill| start < spill.written);
            return Some(spill.map(Progress::Spilled).ok_or_else(|| Error::new(INCOMPLETE)));
        }
        Some(match state.end.as_ref()? {
            End::Complete => Ok(Progress::End),
            failed @ End::Failed(_) => Err(failed.error()),
        })
    }
}

/// Reads a write in progress.
pub(super) struct Reader {
    flight: Arc<Flight>,
    /// What the flight knows of the position.
    position: u64,
}

impl Reader {
    pub(super) fn flight(&self) -> &Flight {
        &self.flight
    }

    /// The bytes at `start`, at most to `end`; waits for them. What is before `start` may be freed.
    pub(super) async fn read(&mut self, start: u64, end: u64) -> Result<Progress, BError> {
        self.move_to(start);
        loop {
            let changed = self.flight.changed.notified();
            tokio::pin!(changed);
            // From here on, a change wakes this reader, also before it waits.
            changed.as_mut().enable();
            if let Some(result) = self.flight.poll(start, end) {
                return result;
            }
            changed.await;
        }
    }

    fn move_to(&mut self, position: u64) {
        if position != self.position {
            let mut state = self.flight.state.lock();
            state.readers.add(position);
            state.readers.remove(self.position);
            state.free();
            drop(state);
            self.position = position;
            self.flight.consumed.notify_one();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.flight.state.lock();
        state.readers.remove(self.position);
        state.free();
        drop(state);
        self.flight.consumed.notify_one();
    }
}

/// The writes in progress of a store.
#[derive(Default)]
pub(super) struct Flights {
    by_hash: Mutex<AHashMap<u128, Vec<Arc<Flight>>>>,
}

impl Flights {
    pub(super) fn add(&self, flight: Arc<Flight>) {
        self.by_hash.lock().entry(flight.hash).or_default().push(flight);
    }

    pub(super) fn remove(&self, flight: &Arc<Flight>) {
        let mut by_hash = self.by_hash.lock();
        if let Some(list) = by_hash.get_mut(&flight.hash) {
            list.retain(|other| !Arc::ptr_eq(other, flight));
            if list.is_empty() {
                by_hash.remove(&flight.hash);
            }
        }
    }

    /// The newest write with this key that has not failed.
    pub(super) fn find(&self, hash: u128, key: &CacheKey) -> Option<Arc<Flight>> {
        let by_hash = self.by_hash.lock();
        let found = |flight: &&Arc<Flight>| flight.key.is(key) && !flight.hidden.load(Ordering::Acquire);
        by_hash.get(&hash)?.iter().rev().find(found).cloned()
    }

    /// The write with this identity, also if it failed.
    pub(super) fn find_id(&self, hash: u128, key: &CacheKey, id: u64) -> Option<Arc<Flight>> {
        let by_hash = self.by_hash.lock();
        by_hash.get(&hash)?.iter().find(|flight| flight.id == id && flight.key.is(key)).cloned()
    }

    /// Keeps the writes with this hash from becoming an entry; with `id`, only that write. Returns the identity of
    /// the newest one.
    pub(super) fn purge(&self, hash: u128, id: Option<u64>) -> Option<u64> {
        let by_hash = self.by_hash.lock();
        let mut newest = None;
        for flight in by_hash.get(&hash)?.iter().filter(|flight| id.is_none_or(|id| id == flight.id)) {
            flight.purge();
            newest = Some(flight.id);
        }
        newest
    }

    pub(super) fn purge_all(&self) {
        self.by_hash.lock().values().flatten().for_each(|flight| flight.purge());
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_hash.lock().values().map(Vec::len).sum()
    }
}
