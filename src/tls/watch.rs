//! The background service that reloads changed files and warns about expiring certificates.
//!
//! Files are examined twice per second because inotify misses some changes: of files on network shares, of remounted
//! files, and of the targets of symbolic links, which containers use for secrets. Examining a file costs a
//! few microseconds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::time::{MissedTickBehavior, interval};

use super::terminator::Terminator;
use crate::base::event::Event;
use crate::base::file_stamps::{SETTLE_TIME, Stamps};
use crate::base::units::Timestamp;

/// The interval of examining files.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The interval of checking for expiring certificates.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// How long before its expiry a certificate is reported.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Watches the files of all listeners.
pub struct Watcher {
    watched: Vec<Watched>,
}

#[derive(Clone)]
struct Watched {
    terminator: Arc<Terminator>,
    /// The state of the files before they were read last.
    stamps: Stamps,
}

impl Watcher {
    /// A watcher of the files of `terminators`.
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
            let (mut files, mut expiry) = (interval(POLL_INTERVAL), interval(EXPIRY_INTERVAL));
            files.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut watched = self.watched.clone();
            loop {
                tokio::select! {
                    _ = files.tick() => {
                        let files_before = watched.clone();
                        // Disks and network file systems may be slow.
                        match tokio::task::spawn_blocking(move || examine(files_before)).await {
                            Ok(seen) => watched = seen,
                            Err(e) => log::error!("cannot check certificate files for changes: {e}"),
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

/// Examines all files once, and reads the changed ones.
fn examine(mut watched: Vec<Watched>) -> Vec<Watched> {
    let seen: Vec<Stamps> = watched.iter().map(|each| each.stamps.again()).collect();
    if watched.iter().zip(&seen).all(|(each, seen)| each.stamps == *seen) {
        return watched;
    }
    // A certificate and its key are two files that are not written at the same time.
    std::thread::sleep(SETTLE_TIME);
    for (each, seen) in watched.iter_mut().zip(seen) {
        // A file that is still being written is read at a later examination.
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

fn announce_expiry(terminator: &Terminator) {
    let now = SystemTime::now();
    for certificate in terminator.certificates() {
        if expires_soon(certificate.expires(), now) {
            Event::CertificateExpires {
                listener: terminator.listener().to_owned(),
                certificate: certificate.names().first().map_or("-", String::as_str).to_owned(),
                serial: certificate.serial().to_owned(),
                expires: Timestamp(certificate.expires()),
                expired: certificate.expires() <= now,
            }
            .announce();
        }
    }
}

fn expires_soon(expires: SystemTime, now: SystemTime) -> bool {
    expires.duration_since(now).is_ok_and(|left| left < EXPIRY_WARNING) || expires <= now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiring_certificate_is_reported_a_month_ahead() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let day = Duration::from_secs(24 * 60 * 60);
        assert!(!expires_soon(now + 31 * day, now));
        assert!(expires_soon(now + 29 * day, now) && expires_soon(now, now) && expires_soon(now - 400 * day, now));
    }
}
