//! Writes in progress, and how readers follow them.

use super::entries::{FullKey, INCOMPLETE};
use super::meta::StoredMeta;
use super::pieces::Pieces;
use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::Mutex;
use pingora_cache::CacheKey;
use pingora_error::{BError, Error, ErrorType};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

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

#[derive(Default)]
struct State {
    pieces: Pieces,
    spill: Option<Spill>,
    end: Option<End>,
}

/// A write in progress. The writer never waits for readers: it appends, and wakes those that wait.
pub(super) struct Flight {
    pub(super) hash: u128,
    pub(super) key: FullKey,
    pub(super) id: u64,
    pub(super) meta: StoredMeta,
    state: Mutex<State>,
    changed: Notify,
    /// Lookups by key do not find it.
    hidden: AtomicBool,
    /// It must not become an entry.
    purged: AtomicBool,
}

impl Flight {
    pub(super) fn new(hash: u128, key: FullKey, id: u64, meta: StoredMeta) -> Arc<Self> {
        Arc::new(Self {
            hash,
            key,
            id,
            meta,
            state: Mutex::default(),
            changed: Notify::new(),
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
        state.pieces.release(spill.written);
        state.spill = Some(spill);
    }

    /// Length of the body if it is complete.
    pub(super) fn complete_length(&self) -> Option<u64> {
        let state = self.state.lock();
        matches!(state.end, Some(End::Complete)).then(|| state.pieces.length())
    }

    /// The bytes at `start`, at most to `end`; waits for them.
    pub(super) async fn read(&self, start: u64, end: u64) -> Result<Progress, BError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on, a change wakes this reader, also before it waits.
            changed.as_mut().enable();
            if let Some(result) = self.poll(start, end) {
                return result;
            }
            changed.await;
        }
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
            return Some(state.spill.clone().map(Progress::Spilled).ok_or_else(|| Error::new(INCOMPLETE)));
        }
        Some(match state.end.as_ref()? {
            End::Complete => Ok(Progress::End),
            failed @ End::Failed(_) => Err(failed.error()),
        })
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
