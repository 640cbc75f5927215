//! Reads changed files of filters again, such as those with passwords.

use std::time::Duration;

use super::reload::RuntimeState;
use crate::base::event::Event;

/// The interval of examining files.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Reads changed files of the active filters again.
pub(super) async fn watch(live: &RuntimeState) {
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let snapshot = live.snapshot.load_full();
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
