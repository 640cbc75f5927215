//! The active configuration, and since when it is active.

use std::path::PathBuf;

use super::source::Source;
use crate::base::units::Timestamp;
use crate::config::diagnostic;
use crate::config::redacted::RedactedConfig;

/// The configuration that requests use.
#[derive(Clone, Debug)]
pub struct ActiveConfiguration {
    /// Its file, if it came from one.
    pub file: Option<PathBuf>,
    /// The number of the configuration in this process, from 1.
    pub generation: u64,
    /// Since when it is active.
    pub applied: Timestamp,
    /// The configuration for display.
    pub shown: RedactedConfig,
}

impl ActiveConfiguration {
    /// The first configuration of a process.
    #[must_use]
    pub fn first(text: &diagnostic::Source, source: Option<&Source>) -> Self {
        let file = source.map(|source| source.file().to_owned());
        Self { file, generation: 1, applied: Timestamp::now(), shown: RedactedConfig::of(text) }
    }

    /// The configuration that replaces it.
    pub(super) fn next(&self, text: &diagnostic::Source) -> Self {
        let file = self.file.clone();
        Self { file, generation: self.generation + 1, applied: Timestamp::now(), shown: RedactedConfig::of(text) }
    }
}
