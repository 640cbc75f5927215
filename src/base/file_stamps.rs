//! Detects changed files by their metadata.
//!
//! Files are examined periodically instead of with kernel notifications, which miss files that are mounted
//! again, on network shares or behind symbolic links.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long files must be unchanged before they are read.
pub const SETTLE_TIME: Duration = Duration::from_millis(100);

/// The metadata of files at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps(BTreeMap<PathBuf, Stamp>);

/// The metadata that changes with the content of a file, through symbolic links; `None` if it cannot be read.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

impl Stamps {
    /// The current metadata of the files.
    #[must_use]
    pub fn of(files: impl Iterator<Item = PathBuf>) -> Self {
        Self(files.map(|file| (file.clone(), stamp(&file))).collect())
    }

    /// The current metadata of the same files.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::of(self.0.keys().cloned())
    }

    /// The current metadata if it differs and stays the same for a moment. A file that is still being written is seen by a
    /// later call. Blocks for that moment.
    #[must_use]
    pub fn settled_change(&self) -> Option<Self> {
        let now = self.again();
        if now == *self {
            return None;
        }
        std::thread::sleep(SETTLE_TIME);
        (now.again() == now).then_some(now)
    }

    /// The files that have changed since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<PathBuf> {
        let changed = self.0.iter().filter(|(file, stamp)| before.0.get(*file) != Some(*stamp));
        changed.map(|(file, _)| file.clone()).collect()
    }
}

fn stamp(file: &Path) -> Stamp {
    let seen = std::fs::metadata(file).ok()?;
    Some((seen.dev(), seen.ino(), seen.size(), seen.mtime(), seen.mtime_nsec(), seen.ctime(), seen.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_changes_with_content_replacement_and_symbolic_links() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, link) = (folder.path().join("one"), folder.path().join("two"), folder.path().join("link"));
        assert_eq!(stamp(&one), None);
        std::fs::write(&one, "1").unwrap();
        std::fs::write(&two, "1").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let first = stamp(&link);
        assert!(first.is_some() && first == stamp(&one));
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&two, &link).unwrap();
        assert_ne!(stamp(&link), first, "the link has another target");
        std::fs::rename(&two, &one).unwrap();
        assert_ne!(stamp(&one), first, "the file was replaced");
        std::fs::write(&one, "longer").unwrap();
        assert_ne!(stamp(&one), stamp(&two));
    }
}
