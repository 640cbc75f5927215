//! Notifies the watchdog of systemd.

use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;

use crate::base::systemd;

/// Notifies periodically, also while requests finish at shutdown.
pub(super) struct Watchdog {
    pub(super) period: Duration,
}

#[async_trait]
impl BackgroundService for Watchdog {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let mut beats = tokio::time::interval(self.period);
        loop {
            beats.tick().await;
            systemd::alive();
        }
    }
}
