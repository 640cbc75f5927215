//! Reads changed files of filters again, such as those with passwords.

use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;

use super::reload::RuntimeState;
use crate::base::event::Event;

/// The interval of examining files.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The background service that reads changed files of the active filters again.
pub struct FilterFiles {
    live: RuntimeState,
}

impl FilterFiles {
    /// A service for the filters of `live`.
    #[must_use]
    pub fn new(live: RuntimeState) -> Self {
        Self { live }
    }

    async fn watch(&self) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let snapshot = self.live.snapshot.load_full();
            if snapshot.watched_files.is_empty() {
                continue;
            }
            // Disks and network file systems may be slow.
            let examined = tokio::task::spawn_blocking(move || {
                let events = snapshot.watched_files.iter().filter_map(|file| file.reread());
                events.for_each(Event::announce);
            });
            if let Err(e) = examined.await {
                log::error!("cannot check files of filters for changes: {e}");
            }
        }
    }
}

#[async_trait]
impl BackgroundService for FilterFiles {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.watch() => {}
            // An error means that the process ends.
            _ = shutdown.wait_for(|shutdown| *shutdown) => {}
        }
    }
}
