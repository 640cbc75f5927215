//! Files of filters that are read again when they change, without a reload of the configuration.
//!
//! Files are examined periodically, as those of [`crate::tls`] are. A changed file that cannot be used leaves its previous
//! contents in use, and is reported once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::base::event::Event;
use crate::base::file_stamps::Stamps;

/// A file that is read again when it changes.
pub trait WatchedFile: Send + Sync {
    /// Reads the file again if it has changed. Blocks while it reads.
    fn reread(&self) -> Option<Event>;
}

/// A file and its contents in parsed form.
pub struct Watched<T> {
    file: PathBuf,
    parse: fn(Vec<u8>) -> Result<T, String>,
    current: ArcSwap<Contents<T>>,
    /// The state of the file before it was read last.
    seen: Mutex<Stamps>,
}

/// The parsed contents of a file.
pub struct Contents<T> {
    /// The contents.
    pub value: T,
    /// A number that changes with the contents.
    pub hash: u64,
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("file", &self.file).finish_non_exhaustive()
    }
}

impl<T> Watched<T> {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(file: &Path, parse: fn(Vec<u8>) -> Result<T, String>) -> Result<Self, String> {
        let seen = Stamps::of(std::iter::once(file.to_owned()));
        let current = ArcSwap::from_pointee(read(file, parse)?);
        Ok(Self { file: file.to_owned(), parse, current, seen: Mutex::new(seen) })
    }

    /// The current contents.
    #[must_use]
    pub fn load(&self) -> Arc<Contents<T>> {
        self.current.load_full()
    }

    /// A number that changes with the contents.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.current.load().hash
    }

    /// The name of the file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// A number that changes with the contents of a file.
pub(super) fn content_hash(bytes: &[u8]) -> u64 {
    ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(bytes)
}

fn read<T>(file: &Path, parse: fn(Vec<u8>) -> Result<T, String>) -> Result<Contents<T>, String> {
    let bytes = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let hash = content_hash(&bytes);
    let value = parse(bytes).map_err(|reason| format!("{}: {reason}", file.display()))?;
    Ok(Contents { value, hash })
}

impl<T: Send + Sync> WatchedFile for Watched<T> {
    fn reread(&self) -> Option<Event> {
        let mut seen = self.seen.lock();
        *seen = seen.settled_change()?;
        let file = self.file.display().to_string();
        match read(&self.file, self.parse) {
            Ok(contents) if contents.hash == self.hash() => None,
            Ok(contents) => {
                self.current.store(Arc::new(contents));
                Some(Event::FilterFileLoaded { file })
            }
            Err(reason) => Some(Event::FilterFileFailed { file, reason }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: Vec<u8>) -> Result<u32, String> {
        let text = String::from_utf8(bytes).map_err(|e| e.to_string())?;
        text.trim().parse().map_err(|_| format!("`{}` is not a number", text.trim()))
    }

    #[test]
    fn changed_file_is_read_again_and_a_faulty_one_keeps_the_previous_contents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let write = |text: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, &path).unwrap();
        };
        assert!(Watched::open(&path, number).is_err(), "a missing file");
        write("1");
        let watched = Watched::open(&path, number).unwrap();
        let (one, file) = (watched.hash(), path.display().to_string());
        assert_eq!((watched.load().value, watched.reread()), (1, None));
        write("2");
        assert_eq!(watched.reread(), Some(Event::FilterFileLoaded { file: file.clone() }));
        assert_eq!((watched.load().value, watched.hash() == one, watched.reread()), (2, false, None));
        write("two");
        let reason = format!("{file}: `two` is not a number");
        assert_eq!(watched.reread(), Some(Event::FilterFileFailed { file: file.clone(), reason }));
        assert_eq!((watched.load().value, watched.reread()), (2, None), "reported once");
        write("2");
        assert_eq!(watched.reread(), None, "the same contents");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(watched.reread(), Some(Event::FilterFileFailed { .. })));
        assert_eq!(watched.load().value, 2);
    }
}
