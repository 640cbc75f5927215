//! The engine: what happens between the listener and the backends.
//!
//! It calls the same phases as Pingora's loop, for HTTP/1 clients with HTTP/1.1 backends, in one task and without
//! channels: the head of a request and of a response is parsed once, and bodies are passed on as they were read.
//! Pingora's loop serves the rest: HTTP/2 on either side. Connections to backends, their
//! pool and TLS are Pingora's in both cases.
//!
//! - [`client`]: what the engine needs from the client side; [`http1_client`]: an HTTP/1 client.
//! - [`transfer`]: one attempt; [`backend`]: its connection; [`request_head`]: the head of its request.
//! - [`framing`], [`chunked`]: the end of a message; [`replay`]: the request body, for a retry.

mod backend;
mod chunked;
mod client;
mod framing;
mod http1_client;
mod replay;
mod request_head;
mod transfer;

use std::sync::Arc;

use bytes::BytesMut;
use pingora::{Error, ErrorType};
use pingora_core::apps::HttpServerApp;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::HttpSession;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use backend::Backend;
use client::Client;
use http1_client::Http1Client;
use request_head::RequestKind;
use transfer::Transfer;

use super::exchange::{Exchange, HandedOver};
use super::state::Proxy;
use super::{failover, phases, respond};
use crate::http::h1::parse_request;
use crate::listener::engine::{Engine as ListenerEngine, Http1Request};
use crate::listener::stream_handle::StreamHandle;

/// The most attempts of a request. The retry policy allows fewer.
const ATTEMPTS_MAX: usize = 16;

/// The engine of a worker.
pub struct Engine {
    proxy: Proxy,
    pingora: Arc<HttpProxy<Proxy>>,
    connector: TransportConnector,
    own: bool,
}

/// What happens to a request after its admission.
enum Next {
    /// The response was sent, or there is none.
    Done,
    /// Pingora's loop serves it.
    Pingora,
}

impl Engine {
    /// An engine that serves requests itself if `own`, otherwise with Pingora's loop only.
    #[must_use]
    pub fn new(proxy: Proxy, pingora: HttpProxy<Proxy>, conf: &ServerConf, own: bool) -> Self {
        let connector = TransportConnector::new(Some(ConnectorOptions::from_server_conf(conf)));
        Self { proxy, pingora: Arc::new(pingora), connector, own }
    }

    /// Serves a request up to the access log line.
    async fn serve(&self, client: &mut impl Client, exchange: &mut Exchange) -> Next {
        phases::begin(client, exchange);
        let mut result = match self.proxy.admit(client, exchange).await {
            Ok(false) if exchange.needs_pingora() => return Next::Pingora,
            Ok(false) => self.forward(client, exchange).await,
            Ok(true) => Ok(()),
            Err(e) => Err(e),
        };
        if result.is_ok() {
            result = client.confirm_delivery().await;
        }
        if let Err(e) = &result {
            log::debug!("request failed: {e}");
            respond::failure(client, exchange, e).await;
        }
        self.proxy.finish(client, result.as_ref().err().map(AsRef::as_ref), exchange);
        Next::Done
    }

    /// Forwards an admitted request.
    async fn forward(&self, client: &mut impl Client, exchange: &mut Exchange) -> pingora::Result<()> {
        if !self.proxy.reserve(client, exchange).await? {
            return Ok(());
        }
        let kind = RequestKind::of(client.request());
        request_head::strip_hop_by_hop(client.request_mut(), kind)?;
        for _ in 0..ATTEMPTS_MAX {
            match self.attempt(client, exchange, kind).await {
                Ok(()) => return Ok(()),
                Err(e) if e.retry() => log::debug!("attempt failed: {e}"),
                Err(e) => return Err(e),
            }
        }
        Error::e_explain(ErrorType::InternalError, "too many attempts")
    }

    /// One attempt.
    async fn attempt(
        &self,
        client: &mut impl Client,
        exchange: &mut Exchange,
        kind: RequestKind,
    ) -> pingora::Result<()> {
        let peer = phases::next_peer(exchange).await?;
        let (stream, reused) = match self.connect(&peer).await {
            Ok(connected) => connected,
            Err(mut e) => {
                e.as_up();
                return Err(failover::after_connect(client, exchange, e).into_up());
            }
        };
        let local = stream.get_socket_digest().and_then(|digest| digest.local_addr()?.as_inet().copied());
        exchange.await_response(client, &self.proxy.deadlines, stream.id(), local);
        let backend = Backend::new(stream, request_head::to_bytes(client.request()), kind);
        let mut transfer = Transfer::new(client, exchange, backend);
        let result = std::future::poll_fn(|cx| transfer.poll(cx)).await;
        match result {
            Ok(()) => {
                if let Some(stream) = transfer.into_backend().and_then(Backend::into_reusable) {
                    self.connector.release_stream(stream, peer.reuse_hash(), peer.idle_timeout());
                }
                Ok(())
            }
            Err(e) => {
                drop(transfer);
                Err(failover::after_broken_connection(client, exchange, e, reused))
            }
        }
    }

    /// A connection to `peer`, and whether it was used before.
    async fn connect(&self, peer: &HttpPeer) -> pingora::Result<(Stream, bool)> {
        if let Some(stream) = self.connector.reused_stream(peer).await {
            return Ok((stream, true));
        }
        // Boxed: connecting takes much more memory than anything else in an exchange.
        Box::pin(self.connector.new_stream(peer)).await.map(|stream| (stream, false))
    }

    /// Serves a request of an HTTP/1 client with Pingora's loop.
    async fn with_pingora(&self, stream: &StreamHandle, head: BytesMut, last: bool, draining: &watch::Receiver<bool>) {
        let mut session = ServerSession::new_http1(Box::new(stream.clone()));
        session.set_pipelined_prefix(head);
        if last {
            session.set_keepalive_reuses_remaining(Some(0));
        }
        // The stream that Pingora may return is not needed: the connection records whether the response allows
        // keep-alive.
        drop(self.pingora.process_new_http(session, draining).await);
    }
}

impl ListenerEngine for Engine {
    async fn serve_http1(&self, request: Http1Request<'_>, draining: &watch::Receiver<bool>) {
        let Http1Request { stream, head, bytes, last } = request;
        if !self.own {
            return self.with_pingora(stream, bytes, last, draining).await;
        }
        let bytes = bytes.freeze();
        let Ok(parsed) = parse_request(&bytes, &head) else {
            // Pingora rejects it as well, with a response.
            return self.with_pingora(stream, bytes.into(), last, draining).await;
        };
        let keepalive = !last && !*draining.borrow();
        let mut client = Http1Client::new(stream, parsed, head.body, keepalive);
        let mut exchange = Exchange::begin(self.proxy.live.load_full());
        if let Next::Pingora = self.serve(&mut client, &mut exchange).await {
            let connection = Arc::clone(stream.stream().connection());
            connection.hand_over(Box::new(HandedOver { request: client.into_request(), exchange }));
            self.with_pingora(stream, bytes.into(), last, draining).await;
        }
    }

    async fn serve_http2(&self, session: HttpSession, draining: &watch::Receiver<bool>) {
        self.pingora.process_new_http(ServerSession::new_http2(session), draining).await;
    }

    async fn clean_up(&self) {
        self.pingora.http_cleanup().await;
    }
}
