//! HTTP/1 on one connection: reads each request head, and passes valid requests to the engine.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::time::SystemTime;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::engine::{Engine, Http1Request};
use super::stream::{ClientStream, NextRequest};
use super::stream_handle::StreamHandle;
use super::worker_context::WorkerContext;
use crate::http::h1::{HeadReader, peek};
use crate::http::rejection::DetailedRejection;
use crate::http::request_id::RequestId;
use crate::listener::connection::Connection;
use crate::observe::Record;

/// Serves the connection to its end.
pub(super) async fn serve<E: Engine>(worker: &WorkerContext<E>, stream: ClientStream) {
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
        let (head, bytes) = match poll_fn(head).await {
            NextRequest::Closed => break,
            NextRequest::Rejected(rejection, bytes) => {
                reject(worker, &connection, &mut handle, rejection, &bytes).await;
                break;
            }
            NextRequest::Request(head, bytes) => (head, bytes),
        };
        requests += 1;
        let limits = worker.limits();
        let arrived = Instant::now();
        let last = requests >= limits.requests || arrived.duration_since(start) >= limits.age;
        let request = Http1Request { stream: &handle, head, bytes, arrived: arrived.into_std(), last };
        // Boxed, so that an idle connection does not keep the memory of a request.
        Box::pin(worker.engine.serve_http1(request, &worker.draining)).await;
        if last || !connection.is_keepalive() || !poll_fn(|cx| handle.stream().poll_rest(cx)).await {
            break;
        }
    }
    if let Err(e) = handle.shutdown().await {
        log::debug!("cannot close a connection cleanly: {e}");
    }
}

/// Rejects an invalid request and writes its access log line. The engine does so only for passed requests.
async fn reject<E: Engine>(
    worker: &WorkerContext<E>,
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
    let status = worker.proxy_status(connection.peer.ip(), detailed);
    let status = status.as_ref().and_then(|value| value.to_str().ok());
    let status = status.map_or_else(String::new, |value| format!("proxy-status: {value}\r\n"));
    let response = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         x-request-id: {request_id}\r\n{status}Date: {}\r\nConnection: close\r\n\r\n{page}",
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
    worker.observers.rejected(
        &connection.policy.listener,
        &Record {
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
            cache: "",
            cause: Some(rejection.cause()),
            failed_attempts: &[],
            query: None,
            request_headers: None,
            response_headers: &[],
            detail: detailed.detail,
        },
    );
}

/// The reason phrase of a status code of the listener.
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Rejected")
}
