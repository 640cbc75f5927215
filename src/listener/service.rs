//! What serves the connections of one worker: its proxy, with a pool of backend connections of its
//! own, and the rules for clients.

use std::net::SocketAddr;
use std::sync::Arc;

use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use super::Drain;
use super::caps::{ConnectionCaps, Refused, Slot};
use crate::client_timeouts::ClientTimeouts;
use crate::connection_limits::ConnectionLimits;
use crate::net::{ClientKey, TrustedProxies};
use crate::observe::AccessLog;
use crate::request_limits::RequestLimits;

/// The rules for clients, the same for all workers.
#[derive(Clone)]
pub struct Rules {
    /// How long they may take.
    pub timeouts: ClientTimeouts,
    /// How many they may be, and how much they may ask for.
    pub limits: ConnectionLimits,
    /// How large their requests may be.
    pub request_limits: RequestLimits,
    /// Who stands for many clients, so that its connections are not capped as one client's.
    pub trusted_proxies: TrustedProxies,
    /// Counts their connections.
    pub caps: ConnectionCaps,
}

/// What serves connections.
pub(super) struct Service<P> {
    pub(super) proxy: Arc<HttpProxy<P>>,
    pub(super) access_log: AccessLog,
    pub(super) drain: Drain,
    /// For Pingora, which looks at it with every request.
    pub(super) begun: watch::Receiver<bool>,
    pub(super) timeouts: Arc<ClientTimeouts>,
    pub(super) limits: ConnectionLimits,
    pub(super) caps: ConnectionCaps,
    request_limits: RequestLimits,
    trusted_proxies: TrustedProxies,
}

impl<P> Service<P> {
    pub(super) fn new(proxy: HttpProxy<P>, access_log: AccessLog, drain: Drain, rules: Rules) -> Self {
        Self {
            proxy: Arc::new(proxy),
            access_log,
            begun: drain.begun(),
            drain,
            timeouts: Arc::new(rules.timeouts),
            limits: rules.limits,
            caps: rules.caps,
            request_limits: rules.request_limits,
            trusted_proxies: rules.trusted_proxies,
        }
    }

    /// How large requests may be.
    pub(super) fn request_limits(&self) -> RequestLimits {
        self.request_limits
    }

    /// Counts a connection, if there may be one more.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<Slot, Refused> {
        // Port 0 is somebody at a Unix-domain socket.
        let stands_for_many = peer.port() == 0 || self.trusted_proxies.contains(peer.ip());
        self.caps.admit((!stands_for_many).then(|| ClientKey::from(peer.ip())))
    }
}
