//! Thread of a disk store: scans the directory and removes files.

use super::volume::{self, LEAVES, Volume};
use super::{Disk, DiskEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

/// How long after the start another process may still write to the directory.
const ADOPTION: Duration = Duration::from_secs(600);
/// The scan sleeps a millisecond after this many files.
const BATCH: usize = 256;

/// Work for the thread.
pub(super) enum Task {
    /// The file of an evicted entry.
    Unlink(u128),
    /// Reports that all tasks before it are done.
    #[cfg(test)]
    Flush(std::sync::mpsc::Sender<()>),
    /// Ends the adoption of files, as the passage of time does.
    #[cfg(test)]
    EndAdoption,
}

/// Runs until the process ends.
pub(super) fn run(disk: &'static Disk, tasks: &Receiver<Task>) {
    // At normal priority: on a busy machine, removals would otherwise fall behind the writes, and files would exceed the
    // size. The scan sleeps instead.
    scan(disk, tasks);
    disk.scanning.store(false, Ordering::Release);
    loop {
        match tasks.recv_timeout(ADOPTION.saturating_sub(disk.health.running())) {
            #[cfg(test)]
            Ok(Task::EndAdoption) => break,
            Ok(task) => perform(disk, task),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
    // From the start of this scan on, no other process writes to the directory.
    scan(disk, tasks);
    disk.adopting.store(false, Ordering::Release);
    while let Ok(task) = tasks.recv() {
        perform(disk, task);
    }
}

fn perform(disk: &Disk, task: Task) {
    let result = match task {
        Task::Unlink(hash) => {
            let _lock = disk.index.lock(hash);
            // A new write may have replaced the file meanwhile.
            if disk.index.peek(hash).is_some() { Ok(()) } else { disk.volume.unlink(&volume::name(hash)) }
        }
        #[cfg(test)]
        Task::Flush(done) => done.send(()).map_err(io::Error::other),
        #[cfg(test)]
        Task::EndAdoption => Ok(()),
    };
    disk.removed(result);
}

/// Adds the files that the index does not have, and removes temporary files without a writer.
fn scan(disk: &Disk, tasks: &Receiver<Task>) {
    let mut files = 0;
    for leaf in 0..LEAVES {
        let mut found = read_leaf(disk, leaf);
        // The file that was written last is inserted last, so it is evicted last.
        found.sort_by_key(|file| file.changed);
        for file in &found {
            if disk.index.peek(file.hash).is_none() && !disk.index.insert(file.hash, DiskEntry::new(file.size)) {
                drop(disk.volume.unlink(&volume::name(file.hash)));
            }
            files += 1;
            if files % BATCH == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        while let Ok(task) = tasks.try_recv() {
            perform(disk, task);
        }
        std::thread::yield_now();
    }
}

struct Found {
    hash: u128,
    size: u64,
    changed: i64,
}

fn read_leaf(disk: &Disk, leaf: u16) -> Vec<Found> {
    let mut found = Vec::new();
    // Most directories of a small cache do not exist.
    let Ok(entries) = std::fs::read_dir(disk.volume.leaf_path(leaf)) else { return found };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let (Some(name), Ok(facts)) = (file_name.to_str(), entry.metadata()) else { continue };
        if let Some(hash) = volume::parse_name(name) {
            found.push(Found { hash, size: facts.len(), changed: facts.mtime() });
        } else if Volume::is_temporary(name) {
            let age = facts.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if disk.volume.is_leftover(name, age.unwrap_or_default().as_secs(), disk.health.running().as_secs()) {
                drop(std::fs::remove_file(entry.path()));
            }
        }
    }
    found
}

/// Removes the files of all entries.
pub(super) fn remove_all(volume: &Volume) -> io::Result<()> {
    for leaf in 0..LEAVES {
        let Ok(entries) = std::fs::read_dir(volume.leaf_path(leaf)) else { continue };
        for entry in entries.flatten() {
            if let Some(hash) = entry.file_name().to_str().and_then(volume::parse_name) {
                volume.unlink(&volume::name(hash))?;
            }
        }
    }
    Ok(())
}
