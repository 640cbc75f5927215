//! Which configuration is in force, and since when.

use std::path::PathBuf;

use super::Source;
use crate::base::units::Timestamp;
use crate::config::diagnostic;
use crate::config::shown::Shown;

/// The configuration that requests are served by.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The file that it came from, if any.
    pub file: Option<PathBuf>,
    /// Counts the configurations that were in force in this process, from 1.
    pub generation: u64,
    /// Since when.
    pub applied: Timestamp,
    /// What was written.
    pub shown: Shown,
}

impl InForce {
    /// The first of a process.
    #[must_use]
    pub fn first(text: &diagnostic::Source, source: Option<&Source>) -> Self {
        let file = source.map(|source| source.file().to_owned());
        Self { file, generation: 1, applied: Timestamp::now(), shown: Shown::of(text) }
    }

    /// The one that takes its place.
    pub(super) fn next(&self, text: &diagnostic::Source) -> Self {
        let file = self.file.clone();
        Self { file, generation: self.generation + 1, applied: Timestamp::now(), shown: Shown::of(text) }
    }
}
