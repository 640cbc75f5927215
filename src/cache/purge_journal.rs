//! The journal of a store on disk: its purges outlast the process, and reach a second process with the same folder.
//!
//! The journal is the file `purges` in the folder of the store, one line for each purge. A process changes it only while
//! it holds the lock of the folder, and first reads what another process has added. A last line without an end is from a
//! process that was killed; its purge was never confirmed. When the file has grown, it is replaced by one with the purges
//! that still matter.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::purge::{Generations, Kind, Loaded, Purge};
use crate::base::event::Event;

/// The name of the file.
const NAME: &str = "purges";

/// A smaller file is not replaced because of its size.
const COMPACT_MIN: u64 = 1 << 20;

/// The journal of a folder.
pub(super) struct Journal {
    folder: PathBuf,
    path: PathBuf,
    state: Mutex<State>,
    /// Whether purges apply that the file lacks.
    incomplete: AtomicBool,
    /// Whether the current series of failures was reported.
    reported: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The file when it was last read or written.
    seen: Option<Stamp>,
    /// Its size after it was last replaced.
    compact: u64,
}

/// What changes when another process changes the file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        let changed = (file.mtime(), file.mtime_nsec());
        Self { device: file.dev(), inode: file.ino(), size: file.size(), changed }
    }

    /// Whether the file may only have grown since `before`.
    fn extends(self, before: Self) -> bool {
        (self.device, self.inode) == (before.device, before.inode) && self.size >= before.size
    }
}

impl Journal {
    /// Opens the journal in `folder`, and applies its purges. If it cannot be read, everything stored so far is purged,
    /// because it is unknown what the journal purges.
    pub(super) fn open(folder: &Path, purges: &Generations, now: SystemTime) -> Self {
        let journal = Self {
            folder: folder.to_owned(),
            path: folder.join(NAME),
            state: Mutex::default(),
            incomplete: AtomicBool::new(false),
            reported: AtomicBool::new(false),
        };
        if let Err(e) = journal.refresh(purges, now) {
            purges.purge_all(Kind::Hard, now);
            journal.incomplete.store(true, Ordering::Release);
            journal.report(format!("cannot be read, so everything stored is purged: {e}"));
        }
        // From here on, times of responses that were stored before are comparable.
        purges.stamp(now);
        journal
    }

    /// Adds purges that already apply, and waits until they are on the disk if `sync` is set.
    ///
    /// # Errors
    /// If they are not in the file. They are then added with a later call that succeeds.
    pub(super) fn append(&self, new: &[Purge], purges: &Generations, sync: bool, now: SystemTime) -> io::Result<()> {
        let result = self.try_append(new, purges, sync, now);
        self.settle(&result);
        result
    }

    /// Notes that a purge applies which is not in the file.
    pub(super) fn set_incomplete(&self) {
        self.incomplete.store(true, Ordering::Release);
    }

    /// Whether purges apply that the file lacks.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete.load(Ordering::Acquire)
    }

    /// Replaces the file by one with all purges that apply.
    ///
    /// # Errors
    /// If the file is not replaced.
    pub(super) fn complete(&self, purges: &Generations, now: SystemTime) -> io::Result<()> {
        let mut state = self.state.lock();
        let result = self.lock().and_then(|_lock| {
            self.read(&mut state, purges, now)?;
            self.replace(&mut state, purges)
        });
        drop(state);
        self.settle(&result);
        result
    }

    /// Applies what another process has added since the last call.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn refresh(&self, purges: &Generations, now: SystemTime) -> io::Result<()> {
        let mut state = self.state.lock();
        if self.stamp()? == state.seen {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.read(&mut state, purges, now)
    }

    fn try_append(&self, new: &[Purge], purges: &Generations, sync: bool, now: SystemTime) -> io::Result<()> {
        let mut state = self.state.lock();
        let _lock = self.lock()?;
        self.read(&mut state, purges, now)?;
        if self.is_incomplete() {
            return self.replace(&mut state, purges);
        }
        let is_new = state.seen.is_none();
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let before = file.metadata()?.len();
        let lines: String = new.iter().map(Purge::to_line).collect();
        if let Err(e) = file.write_all(lines.as_bytes()) {
            // A part of a line would damage the next one. If it stays, the next purge replaces the file.
            file.set_len(before).ok();
            return Err(e);
        }
        if sync {
            file.sync_data()?;
        }
        if is_new {
            self.sync_folder()?;
        }
        let stamp = Stamp::of(&file.metadata()?);
        state.seen = Some(stamp);
        if stamp.size > COMPACT_MIN.max(state.compact.saturating_mul(2)) {
            self.replace(&mut state, purges)?;
        }
        Ok(())
    }

    /// Reads what is new in the file. The caller holds the lock of the folder.
    fn read(&self, state: &mut State, purges: &Generations, now: SystemTime) -> io::Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // An operator removed it. What this process knows still applies.
                if state.seen.take().is_some() {
                    self.set_incomplete();
                }
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let stamp = Stamp::of(&file.metadata()?);
        if state.seen == Some(stamp) {
            return Ok(());
        }
        let start = state.seen.filter(|seen| stamp.extends(*seen)).map_or(0, |seen| seen.size);
        file.seek(SeekFrom::Start(start))?;
        let mut lines = Vec::new();
        file.take(stamp.size.saturating_sub(start)).read_to_end(&mut lines)?;
        let Loaded { damaged, torn, .. } = purges.load(&lines, now);
        let torn = torn || lines.last().is_some_and(|byte| *byte != b'\n');
        state.seen = Some(stamp);
        if damaged > 0 {
            self.report(format!("{damaged} lines are damaged, so everything stored is purged"));
        }
        if (damaged > 0 || torn)
            && let Err(e) = self.replace(state, purges)
        {
            // The next line would be appended to the damaged one.
            self.set_incomplete();
            self.report(e.to_string());
        }
        Ok(())
    }

    /// Replaces the file by one with the purges that apply. The caller holds the lock of the folder, and has read the file.
    fn replace(&self, state: &mut State, purges: &Generations) -> io::Result<()> {
        // A purge from here on is either in the lines or appended later.
        self.incomplete.store(false, Ordering::Release);
        let written = self.write_new(&purges.to_lines().concat());
        match &written {
            Ok(stamp) => (state.seen, state.compact) = (Some(*stamp), stamp.size),
            Err(_) => self.set_incomplete(),
        }
        written.map(drop)
    }

    fn write_new(&self, lines: &str) -> io::Result<Stamp> {
        let new = self.folder.join(format!("{NAME}.new"));
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        self.sync_folder()?;
        Ok(Stamp::of(&file.metadata()?))
    }

    /// The name of a file is on the disk once its folder is.
    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// Locks the folder until the result is dropped. May block.
    fn lock(&self) -> io::Result<File> {
        let folder = File::open(&self.folder)?;
        folder.lock()?;
        Ok(folder)
    }

    fn stamp(&self) -> io::Result<Option<Stamp>> {
        match std::fs::metadata(&self.path) {
            Ok(file) => Ok(Some(Stamp::of(&file))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reports the first failure of a series.
    fn settle(&self, result: &io::Result<()>) {
        match result {
            Ok(()) => self.reported.store(false, Ordering::Relaxed),
            Err(e) => {
                self.set_incomplete();
                if !self.reported.swap(true, Ordering::Relaxed) {
                    self.report(format!("cannot be written, purges end with this process: {e}"));
                }
            }
        }
    }

    fn report(&self, reason: String) {
        Event::PurgeJournalFailed { file: self.path.display().to_string(), reason }.announce();
    }
}

#[cfg(test)]
#[path = "purge_journal_tests.rs"]
mod tests;
