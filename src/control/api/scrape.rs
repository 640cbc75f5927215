//! The metrics at addresses of their own, for Prometheus: plain HTTP/1.1, without authentication, and nothing else.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::time::{sleep, timeout};

use super::admin::service::{accept, builder, replaced};
use super::context::Api;
use super::metrics;
use crate::base::lifecycle::Lifecycle;
use crate::http::client_address::ClientKey;
use crate::listener::Socket;
use crate::listener::connection_counts::ConnectionCounts;

/// The most connections.
const CONNECTIONS_MAX: usize = 128;
/// The most connections of one client: an IPv4 address or an IPv6 /64.
const CONNECTIONS_PER_CLIENT: usize = 32;
/// How long a connection may exist; then it ends after its current response.
const AGE_MAX: Duration = Duration::from_secs(60);
/// How long the current response of a connection may take when it ends.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The service, from the time when the process is ready until another process serves.
pub struct ScrapeService {
    sockets: Mutex<Vec<Socket>>,
    shared: Arc<Shared>,
}

struct Shared {
    router: Router,
    counts: ConnectionCounts,
    lifecycle: Lifecycle,
}

impl ScrapeService {
    /// A service of the metrics at the sockets.
    #[must_use]
    pub fn new(sockets: Vec<Socket>, api: Api) -> Self {
        let lifecycle = api.live.lifecycle.clone();
        let router = Router::new().route(metrics::PATH, get(metrics::metrics)).with_state(api);
        let counts = ConnectionCounts::new(CONNECTIONS_MAX, CONNECTIONS_PER_CLIENT);
        Self { sockets: Mutex::new(sockets), shared: Arc::new(Shared { router, counts, lifecycle }) }
    }
}

#[async_trait]
impl BackgroundService for ScrapeService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let sockets = std::mem::take(&mut *self.sockets.lock());
        self.shared.lifecycle.started().await;
        let accepting: Vec<_> =
            sockets.into_iter().map(|socket| tokio::spawn(accept(socket, Arc::clone(&self.shared), serve))).collect();
        tokio::select! {
            () = self.shared.lifecycle.replaced() => {}
            // An error means that the process ends.
            _ = shutdown.wait_for(|shutdown| *shutdown) => {}
        }
        // Scrapes in progress continue; the process ends later.
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Serves a connection, within the bounds.
async fn serve(stream: Stream, peer: SocketAddr, shared: Arc<Shared>) {
    let slot = match shared.counts.admit(Some(ClientKey::from(peer.ip().to_canonical()))) {
        Ok(slot) => slot,
        Err(reached) => return log::debug!("metrics: closed a connection of {peer}: {reached}"),
    };
    let builder = builder(false);
    let service = TowerToHyperService::new(shared.router.clone());
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = serving.as_mut() => Some(served),
        () = sleep(AGE_MAX) => None,
        () = replaced(&shared.lifecycle, false) => None,
    };
    let served = match served {
        Some(served) => Some(served),
        None => {
            serving.as_mut().graceful_shutdown();
            timeout(END_TIMEOUT, serving).await.ok()
        }
    };
    if let Some(Err(e)) = served {
        // The client may have disconnected.
        log::debug!("metrics: {peer}: {e}");
    }
    drop(slot);
}
