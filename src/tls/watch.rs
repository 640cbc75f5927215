//! The background service that reads files again when they change, and sees certificates expire.
//!
//! Files are looked at twice a second instead of waiting for the kernel to tell: notifications miss
//! what is mounted anew, shared over a network or swapped behind a symbolic link, as containers do
//! with their secrets, and a look costs a few microseconds a file.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::time::{MissedTickBehavior, interval};

use super::Terminator;
use crate::event::Event;

/// How often files are looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// How long files must have stayed as they are before they are read: a certificate and its key are
/// two files, which nobody writes at once.
const QUIET: Duration = Duration::from_millis(100);
/// How often it is looked for certificates that end.
const EXPIRY_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);
/// How long before their end certificates are warned about.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Watches the files of all listeners.
pub struct Watcher {
    watched: Vec<Watched>,
}

#[derive(Clone)]
struct Watched {
    terminator: Arc<Terminator>,
    /// What the files looked like before they were read last.
    stamps: Stamps,
}

impl Watcher {
    /// A watcher of what `terminators` are made of.
    #[must_use]
    pub fn new(terminators: Vec<Arc<Terminator>>) -> Self {
        let watch = |terminator: Arc<Terminator>| Watched { stamps: terminator.stamps().clone(), terminator };
        Self { watched: terminators.into_iter().map(watch).collect() }
    }
}

#[async_trait]
impl BackgroundService for Watcher {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let watch = async {
            let (mut files, mut expiry) = (interval(PERIOD), interval(EXPIRY_PERIOD));
            files.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut watched = self.watched.clone();
            loop {
                tokio::select! {
                    _ = files.tick() => {
                        let looked = watched.clone();
                        // Disks may be slow, and so may be what stands behind them.
                        match tokio::task::spawn_blocking(move || look(looked)).await {
                            Ok(seen) => watched = seen,
                            Err(e) => log::error!("cannot look at the files of certificates: {e}"),
                        }
                    }
                    _ = expiry.tick() => {
                        for each in &watched {
                            announce_expiry(&each.terminator);
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = watch => {}
            _ = shutdown.wait_for(|shutdown| *shutdown) => {}
        }
    }
}

/// Looks at all files once, and reads what has changed.
fn look(mut watched: Vec<Watched>) -> Vec<Watched> {
    let seen: Vec<Stamps> = watched.iter().map(|each| each.stamps.again()).collect();
    if watched.iter().zip(&seen).all(|(each, seen)| each.stamps == *seen) {
        return watched;
    }
    std::thread::sleep(QUIET);
    for (each, seen) in watched.iter_mut().zip(seen) {
        // Where somebody is still writing, the next look decides.
        if seen == each.stamps || seen != seen.again() {
            continue;
        }
        let changed = seen.since(&each.stamps);
        each.stamps = seen;
        each.terminator.reload(&changed).into_iter().for_each(Event::announce);
        announce_expiry(&each.terminator);
    }
    watched
}

/// What some files looked like at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(BTreeMap<PathBuf, Stamp>);

/// What of a file's state changes when its content does, through symbolic links; `None` where it
/// cannot be looked at.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

impl Stamps {
    /// What the files look like now.
    pub(super) fn of(files: impl Iterator<Item = PathBuf>) -> Self {
        Self(files.map(|file| (file.clone(), stamp(&file))).collect())
    }

    /// What the same files look like now.
    fn again(&self) -> Self {
        Self::of(self.0.keys().cloned())
    }

    /// The files that have changed since `before`.
    fn since(&self, before: &Self) -> Vec<PathBuf> {
        let changed = self.0.iter().filter(|(file, stamp)| before.0.get(*file) != Some(*stamp));
        changed.map(|(file, _)| file.clone()).collect()
    }
}

fn stamp(file: &Path) -> Stamp {
    let seen = std::fs::metadata(file).ok()?;
    Some((seen.dev(), seen.ino(), seen.size(), seen.mtime(), seen.mtime_nsec(), seen.ctime(), seen.ctime_nsec()))
}

fn announce_expiry(terminator: &Terminator) {
    let now = SystemTime::now();
    for certificate in terminator.certificates() {
        if ends_soon(certificate.expires(), now) {
            Event::CertificateExpires {
                listener: terminator.listener().to_owned(),
                certificate: certificate.names().first().map_or("-", String::as_str).to_owned(),
                serial: certificate.serial().to_owned(),
                expires: certificate.expires(),
                expired: certificate.expires() <= now,
            }
            .announce();
        }
    }
}

fn ends_soon(expires: SystemTime, now: SystemTime) -> bool {
    expires.duration_since(now).is_ok_and(|left| left < EXPIRY_WARNING) || expires <= now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_warned_about_a_month_ahead() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let day = Duration::from_secs(24 * 60 * 60);
        assert!(!ends_soon(now + 31 * day, now));
        assert!(ends_soon(now + 29 * day, now) && ends_soon(now, now) && ends_soon(now - 400 * day, now));
    }

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
