//! Pause of a disk store after an error of the file system.

use super::super::entries::Counters;
use rustix::io::Errno;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long writes are refused after an error.
const PAUSE: Duration = Duration::from_secs(10);

/// Whether a disk store can write.
pub(super) struct Health {
    started: Instant,
    /// End of the pause, in milliseconds since the start.
    paused_until: AtomicU64,
    /// Whether the current series of errors was logged.
    reported: AtomicBool,
    refused: AtomicU64,
}

impl Health {
    #[expect(clippy::disallowed_methods, reason = "the pause is real time")]
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            paused_until: AtomicU64::new(0),
            reported: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        }
    }

    /// Time since the start of the store.
    pub(super) fn running(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether to refuse a write; counts it.
    pub(super) fn refuses(&self) -> bool {
        let until = self.paused_until.load(Ordering::Relaxed);
        let paused = until > 0 && u128::from(until) > self.running().as_millis();
        if paused {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        paused
    }

    /// Writes that were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Records a failed write and starts a pause. Logs the first of a series.
    pub(super) fn report(&self, error: &io::Error, counters: &Counters, directory: &Path) {
        Counters::add(&counters.write_failures);
        let until = (self.running() + PAUSE).as_millis();
        self.paused_until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
        if !self.reported.swap(true, Ordering::Relaxed) {
            log::warn!(
                "The cache in {} cannot store responses: {error}. It retries every {} s. {}",
                directory.display(),
                PAUSE.as_secs(),
                remedy(error)
            );
        }
    }

    /// Records a successful write.
    pub(super) fn succeeded(&self, directory: &Path) {
        if self.reported.load(Ordering::Relaxed) && self.reported.swap(false, Ordering::Relaxed) {
            log::info!("The cache in {} stores responses again.", directory.display());
        }
    }

    #[cfg(test)]
    pub(super) fn end_pause(&self) {
        self.paused_until.store(0, Ordering::Relaxed);
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => "Free space on the file system, or reduce the size of the cache.",
        Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => "Make the directory writable for the user of the process.",
        Some(Errno::MFILE | Errno::NFILE) => "Raise the limit of open files.",
        Some(Errno::NOENT) => "The directory was removed: create it again and restart.",
        _ => "Check the disk.",
    }
}
