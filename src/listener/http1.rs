//! HTTP/1 on one connection: request after request, each looked at before Pingora sees it.

use std::pin::pin;
use std::time::SystemTime;

use bytes::BytesMut;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Shutdown;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::ProxyHttp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::LINGER;
use super::service::Service;
use super::stream::{Arrival, ClientStream};
use crate::http1::glimpse;
use crate::observe::Record;
use crate::rejection::Refusal;
use crate::request_id::RequestId;

/// How much of what it still sends is thrown away meanwhile.
const LINGER_BYTES: usize = 1 << 20;

/// Serves the connection to its end.
pub(super) async fn serve<P>(service: &Service<P>, stream: ClientStream)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    // Pingora wants it in a box, and gives the box back.
    let mut stream = Box::new(stream);
    let began = Instant::now();
    let mut silent = service.drain.silent();
    // The process or the proxy is gone if this fails, and then nothing may stay open either.
    let mut closing = pin!(async move { drop(silent.wait_for(|silent| *silent).await) });
    let mut requests = 0;
    loop {
        let arrival = stream.read_head(&service.request_limits(), requests == 0, closing.as_mut()).await;
        let bytes = match arrival {
            Arrival::Closed => break,
            Arrival::Refused(refusal, bytes) => return refuse(service, *stream, refusal, &bytes).await,
            Arrival::Request(bytes) => bytes,
        };
        requests += 1;
        let limits = service.limits();
        let last = requests >= limits.requests || began.elapsed() >= limits.age;
        match pass(service, stream, bytes, last).await {
            Some(same) => stream = same,
            None => return,
        }
    }
    Shutdown::shutdown(&mut *stream).await;
}

/// Has Pingora answer one request. The stream comes back if another request may follow.
async fn pass<P>(
    service: &Service<P>,
    stream: Box<ClientStream>,
    head: BytesMut,
    last: bool,
) -> Option<Box<ClientStream>>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let mut session = ServerSession::new_http1(stream);
    session.set_pipelined_prefix(head);
    if last {
        session.set_keepalive_reuses_remaining(Some(0));
    }
    let (stream, _) = service.proxy.process_new_http(session, &service.begun).await?.consume();
    let stream = stream.into_any().downcast::<ClientStream>().ok()?;
    // A body that was not taken to its end hides where the next request begins.
    stream.is_at_end().then_some(stream)
}

/// Answers what cannot be taken, and writes the access line that Pingora's requests write for
/// themselves.
async fn refuse<P>(service: &Service<P>, mut stream: ClientStream, refusal: Refusal, bytes: &[u8]) {
    let request_id = RequestId::random();
    let request_id = request_id.as_str();
    let seen = glimpse(bytes);
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
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        AsyncWriteExt::shutdown(&mut stream).await
    };
    let status = if written.await.is_ok() { rejection.status() } else { 0 };
    service.access_log.write(&Record {
        time: SystemTime::now(),
        client: stream.connection().peer_text(),
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
        tries: 0,
        route: None,
        pool: None,
        request_id,
        cause: rejection.cause(),
        detail: refusal.detail,
    });
    linger(stream).await;
}

/// Reads and throws away until the client is done, within limits.
async fn linger(mut stream: ClientStream) {
    stream.discard();
    let discard = async {
        let mut thrown = 0;
        let mut space = [0; 4096];
        while thrown < LINGER_BYTES {
            match stream.read(&mut space).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => thrown += bytes,
            }
        }
    };
    // Whether the client was done in time makes no difference: the connection ends here.
    tokio::time::timeout(LINGER, discard).await.ok();
}

/// The reason phrase of a status that the listener answers with.
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Refused")
}
