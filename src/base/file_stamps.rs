//! What files look like, to see when they change.
//!
//! Files are looked at again and again instead of waiting for the kernel to tell: notifications miss
//! what is mounted anew, shared over a network or swapped behind a symbolic link.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What some files looked like at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps(BTreeMap<PathBuf, Stamp>);

/// What of a file's state changes when its content does, through symbolic links; `None` where it
/// cannot be looked at.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

impl Stamps {
    /// What the files look like now.
    #[must_use]
    pub fn of(files: impl Iterator<Item = PathBuf>) -> Self {
        Self(files.map(|file| (file.clone(), stamp(&file))).collect())
    }

    /// What the same files look like now.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::of(self.0.keys().cloned())
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
    fn a_stamp_changes_with_content_replacement_and_symbolic_links() {
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
        assert_ne!(stamp(&link), first, "the link leads elsewhere");
        std::fs::rename(&two, &one).unwrap();
        assert_ne!(stamp(&one), first, "the file was replaced");
        std::fs::write(&one, "longer").unwrap();
        assert_ne!(stamp(&one), stamp(&two));
    }
}
