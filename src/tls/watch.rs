//! The background service that reads files again when they change, and sees certificates expire.
//!
//! Files are looked at twice a second instead of waiting for the kernel to tell: notifications miss
//! what is mounted anew, shared over a network or swapped behind a symbolic link, as containers do
//! with their secrets, and a look costs a few microseconds a file.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::time::{MissedTickBehavior, interval};

use super::Terminator;
use crate::base::event::Event;
use crate::base::file_stamps::Stamps;
use crate::base::units::Timestamp;

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

fn announce_expiry(terminator: &Terminator) {
    let now = SystemTime::now();
    for certificate in terminator.certificates() {
        if ends_soon(certificate.expires(), now) {
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
}
