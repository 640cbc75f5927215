//! The state file: operator overrides, so that they outlast the process.
//!
//! It is written after each change, to a new file that then replaces the old one, so that a crash leaves one of the
//! two. A file that cannot be read, or is not exactly what this module writes, is moved aside and reported; the
//! process starts without it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::base::event::Event;
use crate::base::units::PoolName;
use crate::pool::operator::saved::SavedOverride;
use crate::pool::{Pool, WEIGHT_MAX};

/// The version of the format.
const VERSION: u32 = 1;
/// The largest file that is read: a hundred thousand overrides have half of it.
const SIZE_MAX: u64 = 64 << 20;

/// The content of the file.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    overrides: Vec<SavedOverride>,
}

/// The state file.
pub struct StateFile {
    /// `None` if it is off.
    path: Option<PathBuf>,
    /// The overrides in the file, as far as known. Also serialises writes.
    known: Mutex<Vec<SavedOverride>>,
}

impl StateFile {
    /// The file at `path`; `None` turns it off.
    #[must_use]
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, known: Mutex::default() }
    }

    /// Reads the file and restores the overrides for which `wanted` returns true.
    #[expect(clippy::disallowed_methods, reason = "slow start begins with the change")]
    pub fn restore(&self, pools: &BTreeMap<PoolName, Arc<Pool>>, wanted: impl Fn(&SavedOverride) -> bool) {
        let Some(path) = &self.path else { return };
        let mut known = self.known.lock();
        match read(path) {
            Ok(overrides) => *known = overrides,
            Err(reason) => return set_aside(path, &reason),
        }
        for saved in known.iter().filter(|saved| wanted(saved)) {
            let restored = pools.get(&saved.pool).is_some_and(|pool| pool.restore(saved.clone(), Instant::now()));
            if !restored {
                let (pool, backend) = (&saved.pool, saved.backend);
                log::warn!("override dropped, the backend is not configured any more: pool={pool} backend={backend}");
            }
        }
    }

    /// Writes the overrides of `pools`, unless the file has them already.
    pub fn save(&self, pools: &BTreeMap<PoolName, Arc<Pool>>) {
        let Some(path) = &self.path else { return };
        let mut known = self.known.lock();
        let overrides: Vec<_> = pools.values().flat_map(|pool| pool.saved_overrides()).collect();
        if overrides == *known {
            return;
        }
        match write(path, &Content { version: VERSION, overrides: overrides.clone() }) {
            Ok(()) => *known = overrides,
            Err(e) => report(path, format!("cannot be written, overrides end with this process: {e}")),
        }
    }
}

/// Reports a file that cannot be used, and keeps it for the operator under another name.
fn set_aside(path: &Path, reason: &str) {
    let aside = with_ending(path, "damaged");
    let kept = match std::fs::rename(path, &aside) {
        Ok(()) => format!("kept as {}", aside.display()),
        Err(e) => format!("and cannot be renamed: {e}"),
    };
    report(path, format!("{reason}; its overrides are ignored, the file is {kept}"));
}

fn report(path: &Path, reason: String) {
    Event::StateFileFailed { file: path.display().to_string(), reason }.announce();
}

/// The overrides in the file; none if it does not exist.
fn read(path: &Path) -> Result<Vec<SavedOverride>, String> {
    let text = match std::fs::metadata(path) {
        Ok(file) if file.len() > SIZE_MAX => return Err(format!("it has {} bytes, more than {SIZE_MAX}", file.len())),
        Ok(_) => std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(format!("cannot be read: {e}")),
    };
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Vec<SavedOverride>, String> {
    let content: Content = serde_json::from_slice(text).map_err(|e| format!("damaged: {e}"))?;
    if content.version != VERSION {
        return Err(format!("its version is {}, not {VERSION}", content.version));
    }
    let weight = content.overrides.iter().filter_map(|saved| saved.overridden.weight).max().unwrap_or_default();
    if weight > WEIGHT_MAX {
        return Err(format!("damaged: a weight of {weight} exceeds {WEIGHT_MAX}"));
    }
    Ok(content.overrides)
}

/// Replaces the file.
fn write(path: &Path, content: &Content) -> io::Result<()> {
    let new = with_ending(path, "new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    let mut text = serde_json::to_vec_pretty(content)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    // The name is on disk once the folder is.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"version":1,"overrides":[{"pool":"p","backend":"unix:/run/a.sock",
        "configured":{"backup":false,"drain":false,"weight":1},
        "override":{"state":"draining","weight":7,"since":"2026-01-02T03:04:05Z"}}]}"#;

    #[test]
    fn written_state_file_is_read_again_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(read(&path), Ok(Vec::new()), "a missing file is empty");
        let overrides = parse(TEXT.as_bytes()).unwrap();
        write(&path, &Content { version: VERSION, overrides: overrides.clone() }).unwrap();
        assert_eq!(read(&path), Ok(overrides));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no other file stays");
    }

    #[test]
    fn damaged_state_file_is_rejected_as_a_whole() {
        for (text, problem) in [
            (String::new(), "EOF"),
            (TEXT[..TEXT.len() - 3].to_owned(), "EOF"),
            (format!("{TEXT}x"), "trailing characters"),
            (TEXT.replace("version\":1", "version\":2"), "its version is 2"),
            (TEXT.replace("\"weight\":7", "\"weight\":1001"), "a weight of 1001 exceeds 1000"),
            (TEXT.replace("\"weight\":7", "\"weight\":-7"), "damaged"),
            (TEXT.replace("draining", "drained"), "unknown variant"),
            (TEXT.replace("unix:/run/a.sock", "a.sock"), "neither an IP address"),
            (TEXT.replace("\"pool\"", "\"pools\""), "unknown field"),
            ("\0\0\0\0".to_owned(), "damaged"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
