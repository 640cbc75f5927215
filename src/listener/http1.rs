//! HTTP/1 on one connection: reads each request head, and passes valid requests to Pingora.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::time::SystemTime;

use bytes::BytesMut;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::ProxyHttp;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::stream::{ClientStream, NextRequest};
use super::stream_handle::StreamHandle;
use super::worker_context::WorkerContext;
use crate::http::h1::{HeadReader, peek};
use crate::http::rejection::DetailedRejection;
use crate::http::request_id::RequestId;
use crate::listener::connection::Connection;
use crate::observe::Record;

/// Serves the connection to its end.
pub(super) async fn serve<P>(worker: &WorkerContext<P>, stream: ClientStream)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let connection = Arc::clone(stream.connection());
    let mut handle = StreamHandle::new(stream);
    let start = Instant::now();
    let mut closing_idle = worker.drain.closing_idle();
    // `wait_for` fails once the sender is dropped at process end; then the connection must close too.
    let mut closing = pin!(async move { drop(closing_idle.wait_for(|closing| *closing).await) });
    let mut requests = 0;
    loop {
        let (mut reader, rules) = (HeadReader::default(), worker.request_limits());
        let head = |cx: &mut Context<'_>| {
            handle.stream().poll_head(cx, &mut reader, (&rules, requests == 0), closing.as_mut())
        };
        let bytes = match poll_fn(head).await {
            NextRequest::Closed => break,
            NextRequest::Rejected(rejection, bytes) => {
                reject(worker, &connection, &mut handle, rejection, &bytes).await;
                break;
            }
            NextRequest::Request(bytes) => bytes,
        };
        requests += 1;
        let limits = worker.limits();
        let last = requests >= limits.requests || start.elapsed() >= limits.age;
        pass(worker, &handle, bytes, last).await;
        if last || !connection.is_keepalive() || !poll_fn(|cx| handle.stream().poll_rest(cx)).await {
            break;
        }
    }
    if let Err(e) = handle.shutdown().await {
        log::debug!("cannot close a connection cleanly: {e}");
    }
}

/// Passes one request to Pingora.
async fn pass<P>(worker: &WorkerContext<P>, handle: &StreamHandle, head: BytesMut, last: bool)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let mut session = ServerSession::new_http1(Box::new(handle.clone()));
    session.set_pipelined_prefix(head);
    if last {
        session.set_keepalive_reuses_remaining(Some(0));
    }
    // The stream that Pingora may return is not needed: the connection records whether the response allows
    // keep-alive.
    drop(worker.proxy.process_new_http(session, &worker.draining).await);
}

/// Rejects an invalid request and writes its access log line. Pingora's hooks do so only for passed requests.
async fn reject<P>(
    worker: &WorkerContext<P>,
    connection: &Connection,
    handle: &mut StreamHandle,
    detailed: DetailedRejection,
    bytes: &[u8],
) {
    let request_id = RequestId::random();
    let request_id = request_id.as_str();
    let head = peek(bytes);
    let rejection = detailed.rejection;
    let (content_type, page) = rejection.page(false, request_id);
    let response = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         x-request-id: {request_id}\r\nDate: {}\r\nConnection: close\r\n\r\n{page}",
        rejection.status(),
        reason(rejection.status()),
        page.len(),
        httpdate::fmt_http_date(SystemTime::now()),
    );
    let start = Instant::now();
    let write = async {
        handle.write_all(response.as_bytes()).await?;
        handle.flush().await
    };
    let status = if write.await.is_ok() { rejection.status() } else { 0 };
    handle.stream().discard();
    worker.access_log.write(&Record {
        time: SystemTime::now(),
        client: connection.peer_text(),
        method: head.method,
        host: head.host,
        path: head.target.split(['?', '#']).next().unwrap_or_default(),
        protocol: "HTTP/1.1",
        status,
        // The length of a page fits into 64 bits.
        bytes: page.len() as u64,
        latency: start.elapsed(),
        upstream: None,
        upstream_latency: None,
        attempts: 0,
        route: None,
        pool: None,
        request_id,
        cause: rejection.cause(),
        detail: detailed.detail,
    });
}

/// The reason phrase of a status code of the listener.
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Rejected")
}
