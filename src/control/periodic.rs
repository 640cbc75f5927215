//! The service for what is done from time to time: lists of sources, files of filters, counters.

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;

use super::reload::RuntimeState;
use super::{filter_files, list_keeper, metrics};

/// The background service for what is done from time to time.
pub struct Periodic {
    live: RuntimeState,
}

impl Periodic {
    /// A service for the parts of `live`.
    #[must_use]
    pub fn new(live: RuntimeState) -> Self {
        Self { live }
    }
}

#[async_trait]
impl BackgroundService for Periodic {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let live = &self.live;
        tokio::select! {
            _ = async { tokio::join!(list_keeper::keep(live), filter_files::watch(live), metrics::keep(live)) } => {}
            // An error means that the process ends.
            _ = shutdown.wait_for(|shutdown| *shutdown) => {}
        }
    }
}
