//! HTTP/1 on one connection: reads each request head, and passes legal requests to Pingora.

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

use super::lent::Lent;
use super::service::Service;
use super::stream::{Arrival, ClientStream};
use crate::http::h1::{HeadReader, peek};
use crate::http::rejection::DetailedRejection;
use crate::http::request_id::RequestId;
use crate::listener::connection::Connection;
use crate::observe::Record;

/// Serves the connection to its end.
pub(super) async fn serve<P>(service: &Service<P>, stream: ClientStream)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let connection = Arc::clone(stream.connection());
    let mut lent = Lent::new(stream);
    let began = Instant::now();
    let mut silent = service.drain.silent();
    // An error means that the process or the proxy has ended, and then the connection must close too.
    let mut closing = pin!(async move { drop(silent.wait_for(|silent| *silent).await) });
    let mut requests = 0;
    loop {
        let (mut reader, rules) = (HeadReader::default(), service.request_limits());
        let head =
            |cx: &mut Context<'_>| lent.stream().poll_head(cx, &mut reader, (&rules, requests == 0), closing.as_mut());
        let bytes = match poll_fn(head).await {
            Arrival::Closed => break,
            Arrival::Refused(refusal, bytes) => {
                refuse(service, &connection, &mut lent, refusal, &bytes).await;
                break;
            }
            Arrival::Request(bytes) => bytes,
        };
        requests += 1;
        let limits = service.limits();
        let last = requests >= limits.requests || began.elapsed() >= limits.age;
        pass(service, &lent, bytes, last).await;
        if last || !connection.is_kept() || !poll_fn(|cx| lent.stream().poll_rest(cx)).await {
            break;
        }
    }
    if let Err(e) = lent.shutdown().await {
        log::debug!("cannot close a connection cleanly: {e}");
    }
}

/// Passes one request to Pingora.
async fn pass<P>(service: &Service<P>, lent: &Lent, head: BytesMut, last: bool)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let mut session = ServerSession::new_http1(Box::new(lent.clone()));
    session.set_pipelined_prefix(head);
    if last {
        session.set_keepalive_reuses_remaining(Some(0));
    }
    // Whether Pingora returns the stream does not matter: the response has told the client about keep-alive.
    drop(service.proxy.process_new_http(session, &service.begun).await);
}

/// Rejects an illegal request, and writes its access log line, which Pingora's hooks write for other requests.
async fn refuse<P>(service: &Service<P>, connection: &Connection, lent: &mut Lent, refusal: DetailedRejection, bytes: &[u8]) {
    let request_id = RequestId::random();
    let request_id = request_id.as_str();
    let seen = peek(bytes);
    let rejection = refusal.rejection;
    let (content_type, page) = rejection.page(false, request_id);
    let answer = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         x-request-id: {request_id}\r\nDate: {}\r\nConnection: close\r\n\r\n{page}",
        rejection.status(),
        reason(rejection.status()),
        page.len(),
        httpdate::fmt_http_date(SystemTime::now()),
    );
    let began = Instant::now();
    let written = async {
        lent.write_all(answer.as_bytes()).await?;
        lent.flush().await
    };
    let status = if written.await.is_ok() { rejection.status() } else { 0 };
    lent.stream().discard();
    service.access_log.write(&Record {
        time: SystemTime::now(),
        client: connection.peer_text(),
        method: seen.method,
        host: seen.host,
        path: seen.target.split(['?', '#']).next().unwrap_or_default(),
        protocol: "HTTP/1.1",
        status,
        // The length of a page fits into 64 bits.
        bytes: page.len() as u64,
        latency: began.elapsed(),
        upstream: None,
        upstream_latency: None,
        attempts: 0,
        route: None,
        pool: None,
        request_id,
        cause: rejection.cause(),
        detail: refusal.detail,
    });
}

/// The reason phrase of a status code of the listener.
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Refused")
}
