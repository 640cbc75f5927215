//! Requests that filters make to pools while a request waits.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::exchange::Exchange;
use crate::decision::snapshot::{Route, Snapshot};
use crate::filter::subrequests::{SubResponse, Subrequest, Subrequests};

/// Forwards a request of a filter. Only the own engine does.
#[async_trait]
pub(super) trait Forwarder: Send + Sync {
    /// Forwards the request in the state of `exchange`, which has its route.
    async fn forward_subrequest(&self, request: Subrequest, exchange: Exchange) -> Result<SubResponse, &'static str>;
}

/// The requests on behalf of one exchange.
pub(super) struct OnBehalf<'a> {
    forwarder: Option<&'a dyn Forwarder>,
    snapshot: Arc<Snapshot>,
    /// The state of the next request, made from that of the exchange.
    fork: Mutex<Option<Exchange>>,
}

impl<'a> OnBehalf<'a> {
    /// For a wait of `exchange`.
    #[expect(clippy::disallowed_methods, reason = "the clock of the request starts here")]
    pub(super) fn of(exchange: &Exchange, forwarder: Option<&'a dyn Forwarder>) -> Self {
        let fork = forwarder.map(|_| exchange.fork(std::time::Instant::now()));
        Self { forwarder, snapshot: Arc::clone(&exchange.snapshot), fork: Mutex::new(fork) }
    }
}

#[async_trait]
impl Subrequests for OnBehalf<'_> {
    async fn send(&self, request: Subrequest) -> Result<SubResponse, &'static str> {
        let fork = self.fork.lock().take();
        let (Some(forwarder), Some(mut exchange)) = (self.forwarder, fork) else {
            return Err("the engine makes no requests for filters");
        };
        let pool = self.snapshot.pools.get(&request.pool).ok_or("there is no such pool")?;
        exchange.route = Some(Arc::new(Route::to_pool(pool)));
        exchange.filtered = None;
        exchange.http2 = false;
        forwarder.forward_subrequest(request, exchange).await
    }
}
