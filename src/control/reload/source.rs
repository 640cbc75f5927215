//! The configuration file and its last known state.

use std::path::{Path, PathBuf};

use crate::base::file_stamps::Stamps;

/// The file of a configuration.
#[derive(Clone, Debug)]
pub struct Source {
    pub(super) file: PathBuf,
    pub(super) stamps: Stamps,
}

impl Source {
    /// The path of the file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Records the state of `file`; must be called before it is read, so that no change is missed.
    #[must_use]
    pub fn of(file: &Path) -> Self {
        // A daemon changes its folder.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let stamps = Stamps::of(std::iter::once(file.clone()));
        Self { file, stamps }
    }
}
