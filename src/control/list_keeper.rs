//! Writes the last good lists of discovery sources after they have changed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;

use super::reload::RuntimeState;

/// How often the lists of sources are examined.
const LIST_INTERVAL: Duration = Duration::from_secs(2);

/// The background service that writes the lists of sources after they have changed.
pub struct ListKeeper {
    live: RuntimeState,
}

impl ListKeeper {
    /// A service for the pools of `live`.
    #[must_use]
    pub fn new(live: RuntimeState) -> Self {
        Self { live }
    }

    async fn keep(&self) {
        let mut saved = Vec::new();
        loop {
            tokio::time::sleep(LIST_INTERVAL).await;
            let snapshot = self.live.snapshot.load_full();
            let changes: Vec<(String, u64)> = snapshot
                .pools
                .values()
                .flat_map(|pool| pool.sources().external().map(move |kept| (pool, kept)))
                .map(|(pool, kept)| (format!("{} {}", pool.name(), kept.name()), *kept.changes().borrow()))
                .collect();
            if changes != saved {
                let state_file = Arc::clone(&self.live.state_file);
                // It fails only if the process ends.
                tokio::task::spawn_blocking(move || state_file.save_lists(&snapshot.pools)).await.ok();
                saved = changes;
            }
        }
    }
}

#[async_trait]
impl BackgroundService for ListKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.keep() => {}
            // An error means that the process ends.
            _ = shutdown.wait_for(|shutdown| *shutdown) => {}
        }
    }
}
