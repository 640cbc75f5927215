//! What serves the connections of one worker: its proxy, with a pool of backend connections of its
//! own, and the rules for clients.

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

/// The rules for clients at one time.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long they may take; a connection keeps what it began with.
    pub timeouts: Arc<ClientTimeouts>,
    /// How many they may be, and how much they may ask for.
    pub limits: ConnectionLimits,
    /// How large their requests may be.
    pub request_limits: RequestLimits,
    /// Who stands for many clients, so that its connections are not capped as one client's.
    pub trusted_proxies: TrustedProxies,
    /// Connections in all, and of each client.
    pub caps: (usize, usize),
}

/// The rules for clients, the same for all workers and exchanged for all at once.
#[derive(Clone)]
pub struct LiveRules {
    now: Arc<ArcSwap<Rules>>,
    caps: ConnectionCaps,
}

impl LiveRules {
    /// Begins with `rules`.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let (total, per_client) = rules.caps;
        Self { now: Arc::new(ArcSwap::from_pointee(rules)), caps: ConnectionCaps::new(total, per_client) }
    }

    /// From now on `rules` hold: for the next request where they concern requests, else for the next
    /// connection. Nobody who is in is sent away.
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
    /// For Pingora, which looks at it with every request.
    pub(super) begun: watch::Receiver<bool>,
    pub(super) caps: ConnectionCaps,
    rules: Arc<ArcSwap<Rules>>,
}

impl<P> Service<P> {
    pub(super) fn new(proxy: HttpProxy<P>, access_log: AccessLog, drain: Drain, rules: LiveRules) -> Self {
        Self { proxy: Arc::new(proxy), access_log, begun: drain.begun(), drain, caps: rules.caps, rules: rules.now }
    }

    /// How long clients may take.
    pub(super) fn timeouts(&self) -> Arc<ClientTimeouts> {
        Arc::clone(&self.rules.load().timeouts)
    }

    /// How much one connection may carry.
    pub(super) fn limits(&self) -> ConnectionLimits {
        self.rules.load().limits
    }

    /// How large requests may be.
    pub(super) fn request_limits(&self) -> RequestLimits {
        self.rules.load().request_limits
    }

    /// Counts a connection, if there may be one more.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<Slot, Refused> {
        // Port 0 is somebody at a Unix-domain socket.
        let stands_for_many = peer.port() == 0 || self.rules.load().trusted_proxies.contains(peer.ip());
        self.caps.admit((!stands_for_many).then(|| ClientKey::from(peer.ip())))
    }
}
