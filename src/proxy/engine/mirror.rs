//! Copies of requests for the filter `mirror`: each is forwarded in a task of its own, and its response is discarded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use pingora_http::RequestHeader;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::OwnEngine;
use super::cached::{FetchClient, Part};
use super::client::Client;
use crate::decision::snapshot::Route;
use crate::filter::comparison::Observed;
use crate::filter::mirror::{Mirror, RequestCopy, X_MIRRORED};
use crate::filter::mirror_tally::{Dropped, Outcome};
use crate::http::rejection::Rejection;
use crate::pool::Pool;
use crate::proxy::exchange::Exchange;
use crate::proxy::failover;
use crate::proxy::mirroring::{CopiedBody, Mirroring};

/// How much longer than its timeout a copy exists at most: timeouts end it earlier, with their cause.
const GRACE: Duration = Duration::from_millis(500);

impl OwnEngine {
    /// Starts the copies of an admitted request, which has its form for backends except its rewritten target.
    pub(super) fn mirror(self: &Arc<Self>, client: &mut impl Client, exchange: &mut Exchange) {
        let mirrors = exchange.filtered.as_mut().map(|filtered| std::mem::take(&mut filtered.changes.mirrors));
        let mirrors = mirrors.unwrap_or_default();
        if mirrors.is_empty() || exchange.upgrade {
            return;
        }
        let announced =
            client.request().headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let has_body = !client.is_request_complete();
        let mut mirroring = Box::<Mirroring>::default();
        for mirror in mirrors {
            if let Some(copy) = copy(&mirror, exchange, announced) {
                let body = has_body.then(|| mirroring.add(mirror.body_max));
                copy.pair().into_iter().for_each(|pair| mirroring.compare(pair));
                self.start_copy(copy, client.request().clone(), body, exchange);
            }
        }
        exchange.mirroring = Some(mirroring);
    }

    #[expect(clippy::disallowed_methods, reason = "the clock of the copy starts here")]
    fn start_copy(
        self: &Arc<Self>,
        copy: RequestCopy,
        head: RequestHeader,
        body: Option<oneshot::Receiver<CopiedBody>>,
        exchange: &Exchange,
    ) {
        let Some(pool) = exchange.snapshot.pools.get(&copy.mirror().pool) else { return };
        let fork = fork(exchange, pool, copy.mirror().timeout);
        let engine = Arc::clone(self);
        // Boxed: tokio copies a task several times.
        tokio::spawn(Box::pin(async move {
            let body = match body {
                None => Ok(Bytes::new()),
                Some(body) => body.await.unwrap_or(Err(Dropped::BodyIncomplete)),
            };
            match body {
                Err(reason) => copy.dropped(reason),
                Ok(body) => engine.send_copy(copy, (head, body), fork.restarted(Instant::now())).await,
            }
        }));
    }

    /// Compares the response that the client got with those of the copies.
    #[expect(clippy::disallowed_methods, reason = "the request has ended now")]
    pub(super) fn compare_copies(client: &impl Client, exchange: &mut Exchange) {
        let Some(mirroring) = exchange.mirroring.take() else { return };
        if let Some(status) = client.response_status().filter(|_| client.has_response()) {
            let latency = exchange.upstream_latency;
            mirroring.responded(Observed { status: status.as_u16(), latency }, Instant::now());
        }
    }

    async fn send_copy(&self, copy: RequestCopy, (mut head, body): (RequestHeader, Bytes), mut exchange: Exchange) {
        if prepare(&mut head, body.len()).is_err() {
            // Not reached: the fields are legal.
            return;
        }
        copy.sent();
        let (client, parts) = FetchClient::new(head, exchange.connection.clone());
        let mut client = client.with_body(body);
        let mut seen = Seen::default();
        let forwarded = {
            let forward = async {
                let result = self.forward(&mut client, &mut exchange).await;
                client.close();
                result
            };
            let both = async { tokio::join!(forward, discard(parts, &mut seen)).0 };
            timeout(copy.mirror().timeout.saturating_add(GRACE), both).await
        };
        let outcome = match (seen.status, forwarded, exchange.rejection) {
            (Some(status), _, _) => Outcome::Response { status, complete: seen.ended },
            (None, _, Some(rejection)) => Outcome::Failure(rejection.cause().as_str()),
            (None, Ok(Err(e)), None) => Outcome::Failure(failover::classify(&exchange, &e).cause().as_str()),
            (None, Ok(Ok(())), None) => Outcome::Failure(Rejection::Internal.cause().as_str()),
            (None, Err(_), None) => Outcome::Failure(Rejection::TotalTimeout.cause().as_str()),
        };
        #[expect(clippy::disallowed_methods, reason = "the copy ends now")]
        copy.ended(outcome, exchange.upstream_latency, Instant::now());
    }
}

/// Begins a copy, unless there are too many or the announced body is too large.
fn copy(mirror: &Arc<Mirror>, exchange: &Exchange, announced: Option<usize>) -> Option<RequestCopy> {
    let copy = mirror.copy(exchange.route.as_ref().map_or("", |route| route.name.as_str()))?;
    if announced.is_some_and(|length| length > mirror.body_max) {
        copy.dropped(Dropped::BodyTooLarge);
        return None;
    }
    Some(copy)
}

/// The state of a copy: that of a request of its own to `pool`.
#[expect(clippy::disallowed_methods, reason = "the clock of the copy starts here")]
fn fork(exchange: &Exchange, pool: &Arc<Pool>, limit: Duration) -> Exchange {
    let mut fork = exchange.fork(Instant::now());
    fork.route = Some(Arc::new(Route::for_copies(pool, limit)));
    if let (Some(filtered), Some(original)) = (&mut fork.filtered, &exchange.filtered) {
        filtered.changes = original.changes.for_copy();
    }
    // The client's connection is not that of this copy: its progress means nothing.
    fork.http2 = true;
    fork.cache = "";
    fork
}

/// Completes the head of a copy, whose whole body is known.
fn prepare(head: &mut RequestHeader, body: usize) -> pingora::Result<()> {
    for name in [EXPECT, UPGRADE] {
        head.remove_header(&name);
    }
    if head.remove_header(&TRANSFER_ENCODING).is_some() || body > 0 {
        head.insert_header(CONTENT_LENGTH, body)?;
    }
    head.insert_header(X_MIRRORED, HeaderValue::from_static("1"))
}

/// What was seen of a response.
#[derive(Default)]
struct Seen {
    status: Option<u16>,
    ended: bool,
}

/// Reads a response to its end, and forgets it.
async fn discard(mut parts: mpsc::Receiver<Part>, seen: &mut Seen) {
    while let Some(part) = parts.recv().await {
        match part {
            Part::Interim(_) | Part::Data(_) => {}
            Part::Head(received) => seen.status = Some(received.0.status.as_u16()),
            Part::End(_) => seen.ended = true,
        }
    }
}
