//! What one worker serves connections with: its proxy with its own backend connections, and the rules for
//! clients.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use super::caps::{ConnectionCaps, Refused, Slot};
use super::drain::Drain;
use crate::http::client_address::{ClientKey, TrustedProxies};
use crate::http::request_limits::RequestLimits;
use crate::listener::client_timeouts::ClientTimeouts;
use crate::listener::connection_limits::ConnectionLimits;
use crate::observe::AccessLog;

/// The rules for clients.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The client timeouts; a connection keeps those from its start.
    pub timeouts: Arc<ClientTimeouts>,
    /// The connection limits.
    pub limits: ConnectionLimits,
    /// The size limits of requests.
    pub request_limits: RequestLimits,
    /// The trusted proxies, whose connections do not count as those of one client.
    pub trusted_proxies: TrustedProxies,
    /// The limits on connections in total and per client.
    pub caps: (usize, usize),
}

/// The active rules for clients, shared by all workers and replaced for all of them at once.
#[derive(Clone)]
pub struct LiveRules {
    now: Arc<ArcSwap<Rules>>,
    caps: ConnectionCaps,
}

impl LiveRules {
    /// The initial rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let (total, per_client) = rules.caps;
        Self { now: Arc::new(ArcSwap::from_pointee(rules)), caps: ConnectionCaps::new(total, per_client) }
    }

    /// Replaces the rules. They apply to the next request, or to the next connection where they concern
    /// connections. Open connections stay.
    pub fn replace(&self, rules: Rules) {
        let (total, per_client) = rules.caps;
        self.caps.set(total, per_client);
        self.now.store(Arc::new(rules));
    }
}

/// What serves connections.
pub(super) struct Service<P> {
    pub(super) proxy: Arc<HttpProxy<P>>,
    pub(super) access_log: AccessLog,
    pub(super) drain: Drain,
    /// For Pingora, which reads it with every request.
    pub(super) begun: watch::Receiver<bool>,
    pub(super) caps: ConnectionCaps,
    rules: Arc<ArcSwap<Rules>>,
}

impl<P> Service<P> {
    pub(super) fn new(proxy: HttpProxy<P>, access_log: AccessLog, drain: Drain, rules: LiveRules) -> Self {
        Self { proxy: Arc::new(proxy), access_log, begun: drain.begun(), drain, caps: rules.caps, rules: rules.now }
    }

    /// The client timeouts.
    pub(super) fn timeouts(&self) -> Arc<ClientTimeouts> {
        Arc::clone(&self.rules.load().timeouts)
    }

    /// The connection limits.
    pub(super) fn limits(&self) -> ConnectionLimits {
        self.rules.load().limits
    }

    /// The size limits of requests.
    pub(super) fn request_limits(&self) -> RequestLimits {
        self.rules.load().request_limits
    }

    /// Counts a connection, if the limits allow one more.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<Slot, Refused> {
        // Port 0 is a client of a Unix-domain socket.
        let stands_for_many = peer.port() == 0 || self.rules.load().trusted_proxies.contains(peer.ip());
        self.caps.admit((!stands_for_many).then(|| ClientKey::from(peer.ip())))
    }
}
