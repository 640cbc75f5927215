//! Keeps the purges of a store on disk in its journal, from a thread of its own.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, SystemTime};

use super::purge::{Generations, Purge};
use super::purge_journal::Journal;

/// How often the journal is checked for purges of another process.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// The purges that may wait for the thread. If there are more, it writes the whole journal.
const WAITING: usize = 1024;

/// The journal with its thread, which ends when this is dropped.
pub(super) struct Keeper {
    journal: Arc<Journal>,
    purges: Arc<Generations>,
    later: SyncSender<Purge>,
}

impl Keeper {
    /// Applies the purges in the journal of `folder`, and starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(folder: &Path, purges: &Arc<Generations>) -> Result<Self, String> {
        let journal = Arc::new(Journal::open(folder, purges, SystemTime::now()));
        let (later, waiting) = mpsc::sync_channel(WAITING);
        let keeper = Self { journal: Arc::clone(&journal), purges: Arc::clone(purges), later };
        let purges = Arc::clone(purges);
        std::thread::Builder::new()
            .name("cache-purges".to_owned())
            .spawn(move || run(&journal, &purges, &waiting))
            .map_err(|e| format!("cannot start a thread for the cache: {e}"))?;
        Ok(keeper)
    }

    /// Writes purges that apply to the disk. May block.
    ///
    /// # Errors
    /// If they are not on the disk.
    pub(super) fn keep(&self, new: &[Purge]) -> io::Result<()> {
        self.journal.append(new, &self.purges, true, SystemTime::now())
    }

    /// Writes a purge that applies to the journal soon.
    pub(super) fn keep_later(&self, purge: Purge) {
        if self.later.try_send(purge).is_err() {
            self.journal.set_incomplete();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the journal is checked in real time")]
fn run(journal: &Journal, purges: &Generations, waiting: &Receiver<Purge>) {
    let mut retry_at = Instant::now();
    loop {
        let first = match waiting.recv_timeout(CHECK_INTERVAL) {
            Ok(purge) => Some(purge),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let new: Vec<Purge> = first.into_iter().chain(waiting.try_iter().take(WAITING)).collect();
        if Instant::now() < retry_at {
            // The failed ones are still missing, so all are written with the next attempt.
            if !new.is_empty() {
                journal.set_incomplete();
            }
        } else if !update(journal, purges, &new) {
            retry_at = Instant::now() + RETRY_INTERVAL;
        }
        // Times of responses that another process stores become comparable.
        purges.stamp(SystemTime::now());
    }
}

/// Writes what is missing, and reads what is new. Returns whether that succeeded.
fn update(journal: &Journal, purges: &Generations, new: &[Purge]) -> bool {
    let now = SystemTime::now();
    if !new.is_empty() {
        return journal.append(new, purges, false, now).is_ok();
    }
    if journal.is_incomplete() {
        return journal.complete(purges, now).is_ok();
    }
    journal.refresh(purges, now).inspect_err(|e| log::debug!("cannot read the journal of purges: {e}")).is_ok()
}
