//! Writes the last good lists of discovery sources after they have changed.

use std::sync::Arc;
use std::time::Duration;

use super::reload::RuntimeState;

/// How often the lists of sources are examined.
const LIST_INTERVAL: Duration = Duration::from_secs(2);

/// Writes the lists of sources after they have changed.
pub(super) async fn keep(live: &RuntimeState) {
    let mut saved = Vec::new();
    loop {
        tokio::time::sleep(LIST_INTERVAL).await;
        let snapshot = live.snapshot.load_full();
        let changes: Vec<(String, u64)> = snapshot
            .pools
            .values()
            .flat_map(|pool| pool.sources().external().map(move |kept| (pool, kept)))
            .map(|(pool, kept)| (format!("{} {}", pool.name(), kept.name()), *kept.changes().borrow()))
            .collect();
        if changes != saved {
            let state_file = Arc::clone(&live.state_file);
            // It fails only if the process ends.
            tokio::task::spawn_blocking(move || state_file.save_lists(&snapshot.pools)).await.ok();
            saved = changes;
        }
    }
}
