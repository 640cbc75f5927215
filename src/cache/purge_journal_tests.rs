//! Tests of the journal of purges.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::cache::purge::{Subject, Verdict};
use crate::cache::purge_record::Scope;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A process that uses the folder.
struct Process {
    purges: Generations,
    journal: Journal,
}

impl Process {
    fn start(folder: &Path, now: u64) -> Self {
        let purges = Generations::default();
        let journal = Journal::open(folder, &purges, at(now));
        Self { purges, journal }
    }

    fn purge(&self, tag: &str, now: u64) -> io::Result<()> {
        let purge = self.purges.purge_tag(tag, Kind::Hard, at(now));
        self.journal.append(&[purge], &self.purges, true, at(now))
    }

    /// Whether a response with this tag, stored at this time, is gone.
    fn is_gone(&self, tag: &str, stored: u64) -> bool {
        let subject = Subject { key: b"k", uri: b"k", host: "", path: "/", stored_at: at(stored) };
        self.purges.verdict(&subject, [tag].into_iter()) == Verdict::Gone
    }
}

#[test]
fn purge_applies_to_older_responses_in_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let first = Process::start(folder.path(), 10);
    first.purge("a", 20).unwrap();
    let second = Process::start(folder.path(), 100);
    assert!(second.is_gone("a", 15) && !second.is_gone("a", 30), "a response stored after the purge stays");
    assert!(!second.is_gone("b", 15));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(folder.path().join(NAME)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn torn_last_line_is_dropped_and_later_purges_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    let first = Process::start(folder.path(), 10);
    first.purge("a", 20).unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    first.purge("b", 21).unwrap();
    let whole = std::fs::metadata(&path).unwrap().len();
    for end in length..whole {
        std::fs::write(&path, &std::fs::read(&path).unwrap()[..length.try_into().unwrap()]).unwrap();
        let torn = &Purge { scope: Scope::Tag("b".into()), kind: Kind::Hard, at: at(21) }.to_line();
        let torn = &torn[..usize::try_from(end - length).unwrap()];
        OpenOptions::new().append(true).open(&path).unwrap().write_all(torn.as_bytes()).unwrap();
        let second = Process::start(folder.path(), 100);
        // Only the line end may be missing.
        let is_purge = end + 1 == whole;
        assert!(second.is_gone("a", 15) && second.is_gone("b", 15) == is_purge, "{torn:?}");
        second.purge("c", 110).unwrap();
        let third = Process::start(folder.path(), 200);
        assert!(third.is_gone("a", 15) && third.is_gone("c", 15) && third.is_gone("b", 15) == is_purge, "{torn:?}");
        assert!(!third.is_gone("d", 15), "no line is damaged");
    }
}

#[test]
fn damaged_line_purges_everything_stored_so_far_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    Process::start(folder.path(), 10).purge("a", 20).unwrap();
    let text = std::fs::read_to_string(&path).unwrap().replace("tag a", "tag b");
    std::fs::write(&path, text).unwrap();
    let second = Process::start(folder.path(), 100);
    assert!(second.is_gone("other", 99));
    let third = Process::start(folder.path(), 200);
    assert!(third.is_gone("other", 99) && !third.is_gone("other", 150), "the journal is sound again");
}

#[test]
fn processes_with_the_same_folder_see_purges_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Process::start(folder.path(), 10), Process::start(folder.path(), 11));
    new.purge("a", 20).unwrap();
    assert!(!old.is_gone("a", 15));
    old.journal.refresh(&old.purges, at(21)).unwrap();
    assert!(old.is_gone("a", 15));
    // A purge also reads what the other process added, so replacing the file loses nothing.
    old.purge("b", 22).unwrap();
    new.purge("c", 23).unwrap();
    assert!(new.is_gone("b", 15));
    new.journal.set_incomplete();
    new.journal.complete(&new.purges, at(24)).unwrap();
    old.journal.refresh(&old.purges, at(25)).unwrap();
    assert!(old.is_gone("c", 15));
    old.purge("d", 26).unwrap();
    let next = Process::start(folder.path(), 100);
    for tag in ["a", "b", "c", "d"] {
        assert!(next.is_gone(tag, 15), "{tag}");
    }
}

#[test]
fn journal_is_replaced_when_it_grows() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), 10);
    let long = "x".repeat(200);
    for round in 0..8 {
        let purges: Vec<Purge> =
            (0..1000).map(|n| process.purges.purge_tag(&format!("{long}{n}"), Kind::Hard, at(20 + round))).collect();
        process.journal.append(&purges, &process.purges, false, at(20 + round)).unwrap();
    }
    let size = std::fs::metadata(folder.path().join(NAME)).unwrap().len();
    assert!(size < 2 * COMPACT_MIN, "{size}");
    let next = Process::start(folder.path(), 100);
    assert!(next.is_gone(&format!("{long}999"), 27) && !next.is_gone(&format!("{long}999"), 29));
    assert!(!folder.path().join("purges.new").exists());
}

#[test]
fn purge_that_cannot_be_written_applies_and_is_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    let process = Process::start(folder.path(), 10);
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    process.purge("a", 20).unwrap_err();
    assert!(process.is_gone("a", 15));
    std::fs::remove_file(&path).unwrap();
    process.journal.complete(&process.purges, at(21)).unwrap();
    assert!(Process::start(folder.path(), 100).is_gone("a", 15));
}

#[test]
fn journal_that_cannot_be_read_purges_everything_stored_so_far() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(NAME)).unwrap();
    let process = Process::start(folder.path(), 100);
    process.purges.stamp(at(200));
    assert!(process.is_gone("a", 99) && !process.is_gone("a", 101));
    process.purge("a", 110).unwrap_err();
    assert!(process.is_gone("a", 105));
}
