//! The state file: operator overrides and registered backends, so that they outlast the process. Beside it is a file
//! with the last good lists of discovery sources.
//!
//! The state file is written after each change. The lists are written some seconds after a change
//! (`list_keeper`): they may be long, and a source that works returns them anyway.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::checked_file::{read, report, set_aside, with_ending, write};
use crate::base::units::{PoolName, Timestamp};
use crate::discovery::kept::Kept;
use crate::discovery::source::Found;
use crate::discovery::source::api::SavedRegistration;
use crate::pool::operator::saved::SavedOverride;
use crate::pool::{Pool, WEIGHT_MAX};

/// The content of the state file.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    overrides: Vec<SavedOverride>,
    registrations: BTreeMap<PoolName, Vec<SavedRegistration>>,
}

/// The last good list of a source.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedList {
    pool: PoolName,
    source: String,
    listed: Option<Timestamp>,
    backends: Vec<Found>,
}

type Pools = BTreeMap<PoolName, Arc<Pool>>;

/// The state file.
pub struct StateFile {
    /// `None` if it is off.
    path: Option<PathBuf>,
    /// The content of the file, as far as known. Also serialises writes.
    known: Mutex<Content>,
}

impl StateFile {
    /// The file at `path`; `None` turns it off.
    #[must_use]
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, known: Mutex::default() }
    }

    /// Reads the file and restores the registered backends, and the overrides for which `wanted` returns true.
    /// Registrations that the file lacks end.
    #[expect(clippy::disallowed_methods, reason = "slow start and times to live begin with the call")]
    pub fn restore(&self, pools: &Pools, wanted: impl Fn(&SavedOverride) -> bool) {
        let Some(mut content) = self.content() else { return };
        for (name, pool) in pools {
            if let Some(registry) = pool.sources().registry() {
                registry.replace(content.registrations.remove(name).unwrap_or_default(), Instant::now());
            }
        }
        for saved in content.overrides.iter().filter(|saved| wanted(saved)) {
            let restored = pools.get(&saved.pool).is_some_and(|pool| pool.restore(saved.clone(), Instant::now()));
            if !restored {
                let (pool, backend) = (&saved.pool, saved.backend);
                log::warn!("override dropped, the backend is not configured any more: pool={pool} backend={backend}");
            }
        }
    }

    /// Reads the file; `None` if it is off or cannot be used.
    fn content(&self) -> Option<Content> {
        let path = self.path.as_deref()?;
        let mut known = self.known.lock();
        match read(path).and_then(|content: Option<Content>| checked(content.unwrap_or_default())) {
            Ok(content) => {
                known.clone_from(&content);
                Some(content)
            }
            Err(reason) => {
                set_aside(path, &reason);
                None
            }
        }
    }

    /// Writes the overrides and registrations of `pools`, unless the file has them already.
    pub fn save(&self, pools: &Pools) {
        let Some(path) = &self.path else { return };
        let mut known = self.known.lock();
        let overrides = pools.values().flat_map(|pool| pool.saved_overrides()).collect();
        let registrations = pools.iter().filter_map(|(name, pool)| Some((name, pool.sources().registry()?.saved())));
        let registrations = registrations.filter(|(_, saved)| !saved.is_empty());
        let registrations = registrations.map(|(name, saved)| (name.clone(), saved)).collect();
        let content = Content { overrides, registrations };
        if content == *known {
            return;
        }
        match write(path, &content) {
            Ok(()) => *known = content,
            Err(e) => report(path, format!("cannot be written, its content ends with this process: {e}")),
        }
    }

    /// The file with the lists of sources.
    fn lists(&self) -> Option<PathBuf> {
        self.path.as_deref().map(|path| with_ending(path, "discovered"))
    }

    /// Starts the sources of `pools` with the last good lists of an earlier process.
    pub fn restore_lists(&self, pools: &Pools) {
        let Some(path) = self.lists() else { return };
        let saved: Vec<SavedList> = match read(&path) {
            Ok(saved) => saved.unwrap_or_default(),
            Err(reason) => return set_aside(&path, &reason),
        };
        for SavedList { pool, source, listed, backends } in saved {
            let kept = pools.get(&pool).into_iter().flat_map(|pool| pool.sources().iter());
            kept.filter(|kept| *kept.name().0 == *source).for_each(|kept| kept.restore(backends.clone(), listed));
        }
    }

    /// Writes the lists of the sources.
    pub fn save_lists(&self, pools: &Pools) {
        let Some(path) = self.lists() else { return };
        let saved = |(name, pool): (&PoolName, &Arc<Pool>)| {
            let list = |kept: &Arc<Kept>| SavedList {
                pool: name.clone(),
                source: kept.name().to_string(),
                listed: kept.status().listed,
                backends: kept.current(),
            };
            // Registrations are in the state file.
            pool.sources().external().map(list).collect::<Vec<_>>()
        };
        let saved: Vec<SavedList> = pools.iter().flat_map(saved).filter(|list| !list.backends.is_empty()).collect();
        if let Err(e) = write(&path, &saved) {
            report(&path, format!("cannot be written, the next process does not know the last lists: {e}"));
        }
    }
}

fn checked(content: Content) -> Result<Content, String> {
    let overrides = content.overrides.iter().filter_map(|saved| saved.overridden.weight);
    let registered = content.registrations.values().flatten().map(|saved| saved.settings.weight);
    match overrides.chain(registered).max() {
        Some(weight) if weight > WEIGHT_MAX => Err(format!("damaged: a weight of {weight} exceeds {WEIGHT_MAX}")),
        _ => Ok(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_with_an_impossible_weight_is_rejected() {
        let content = |weight: u32| {
            let text = format!(
                r#"{{"overrides":[{{"pool":"p","backend":"unix:/run/a.sock",
                "configured":{{"backup":false,"drain":false,"weight":1}},
                "override":{{"state":"draining","weight":7,"since":"2026-01-02T03:04:05Z"}}}}],
                "registrations":{{"p":[{{"address":"127.0.0.1:1","settings":{{"weight":{weight}}},"revision":3}}]}}}}"#
            );
            checked(serde_json::from_str(&text).unwrap()).map(|_| ())
        };
        assert_eq!(content(1000), Ok(()));
        assert_eq!(content(1001), Err("damaged: a weight of 1001 exceeds 1000".to_owned()));
    }
}
