//! Connections to backends: new ones and idle ones, of both HTTP versions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::{Error, ErrorType};
use pingora_core::connectors::http::v2;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::{ALPN, HttpPeer, Peer};

use super::idle::{IdleConnection, IdleConnections};
use crate::pool::Endpoint;

/// A connection for one exchange.
pub(super) enum Connected {
    /// HTTP/1.1.
    Http1(Stream),
    /// A stream of an HTTP/2 connection.
    Http2(Box<Http2Session>),
}

/// What connections to a peer must have in common to be used for one another. Hashing a peer is done once per attempt.
#[derive(Clone, Copy)]
pub(super) struct ReuseKey(u64);

impl ReuseKey {
    /// The key of `peer`.
    pub(super) fn of(peer: &HttpPeer) -> Self {
        Self(peer.reuse_hash())
    }
}

/// Where connections come from.
pub(super) struct Connectors {
    http1: TransportConnector,
    idle: IdleConnections,
    http2: v2::Connector,
}

impl Connectors {
    /// Connectors of a worker with the settings of `conf`, without connections.
    pub(super) fn new(conf: &ServerConf) -> Self {
        let options = || Some(ConnectorOptions::from_server_conf(conf));
        // The setting is per thread. With work stealing, one worker has all threads.
        let most = conf.upstream_keepalive_pool_size.saturating_mul(if conf.work_stealing { conf.threads } else { 1 });
        let idle = IdleConnections::new(most);
        Self { http1: TransportConnector::new(options()), idle, http2: v2::Connector::new(options()) }
    }

    /// A connection to `peer`, whose key is `key`, at `now`, and for how long it was idle if it was used before. The idle time of an
    /// HTTP/2 connection is not measured and is zero.
    pub(super) async fn connect(
        &self,
        peer: &HttpPeer,
        key: ReuseKey,
        now: Instant,
    ) -> pingora::Result<(Connected, Option<Duration>)> {
        if peer.options.alpn == ALPN::H1 {
            if let Some((stream, idle)) = self.idle.take(key.0, now) {
                return Ok((Connected::Http1(stream), Some(idle)));
            }
            // Boxed: connecting takes much more memory than anything else in an exchange.
            let stream = Box::pin(self.http1.new_stream(peer)).await?;
            return Ok((Connected::Http1(stream), None));
        }
        Box::pin(self.negotiate(peer, key, now)).await
    }

    /// A connection to a backend that may use HTTP/2.
    async fn negotiate(
        &self,
        peer: &HttpPeer,
        key: ReuseKey,
        now: Instant,
    ) -> pingora::Result<(Connected, Option<Duration>)> {
        if let Some(session) = self.http2.reused_http_session(peer).await? {
            return Ok((Connected::Http2(Box::new(session)), Some(Duration::ZERO)));
        }
        if peer.options.alpn != ALPN::H2
            && let Some((stream, idle)) = self.idle.take(key.0, now)
        {
            // All connections to a backend without HTTP/2 are here.
            return Ok((Connected::Http1(stream), Some(idle)));
        }
        match self.http2.new_http_session(peer).await? {
            HttpSession::H2(session) => Ok((Connected::Http2(Box::new(session)), None)),
            HttpSession::H1(session) => Ok((Connected::Http1(session.into_inner()), None)),
            HttpSession::Custom(()) => Error::e_explain(ErrorType::InternalError, "a protocol without a connector"),
        }
    }

    /// Keeps an HTTP/1.1 connection, which is idle since `now`, for the next exchange.
    pub(super) fn release_http1(
        &self,
        (stream, key): (Stream, ReuseKey),
        peer: &HttpPeer,
        endpoint: &Arc<Endpoint>,
        now: Instant,
    ) {
        let timeout = peer.idle_timeout().unwrap_or(Duration::MAX);
        self.idle.put(key.0, IdleConnection { stream, since: now, timeout, endpoint: Arc::clone(endpoint) });
    }

    /// Ends a stream, and keeps its connection.
    pub(super) fn release_http2(&self, session: Http2Session, peer: &HttpPeer) {
        self.http2.release_http_session(session, peer, peer.idle_timeout());
    }

    /// Decides what follows from a failure of HTTP/2 itself: the next connections to the backend use HTTP/1.1, or
    /// there is no retry.
    pub(super) fn downgrade(&self, mut e: Box<Error>, peer: &HttpPeer) -> Box<Error> {
        if matches!(e.etype, ErrorType::H2Downgrade | ErrorType::InvalidH2) {
            if peer.options.alpn.get_min_http_version() == 1 {
                self.http2.prefer_h1(peer);
            } else {
                e.retry = false.into();
            }
        }
        e
    }
}
