//! The state that a worker uses to serve connections: its engine with its own pool of backend connections, its
//! observers, and the active client settings.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::watch;

use super::client_rules::{ActiveClientRules, ClientRules};
use super::client_timeouts::ClientTimeouts;
use super::connection_counts::{ConnectionCounts, LimitReached, Slot};
use super::connection_limits::ConnectionLimits;
use super::drain::Drain;
use crate::base::accept_errors::AcceptErrors;
use crate::http::access_rules::Verdict;
use crate::http::client_address::ClientKey;
use crate::http::proxy_status::ProxyStatus;
use crate::http::rejection::DetailedRejection;
use crate::http::request_limits::RequestLimits;
use crate::observe::Observers;

/// The state that a worker uses to serve connections.
pub(super) struct WorkerContext<E> {
    pub(super) engine: E,
    pub(super) observers: Observers,
    pub(super) drain: Drain,
    /// Whether draining has started. Read for every request.
    pub(super) draining: watch::Receiver<bool>,
    pub(super) connections: ConnectionCounts,
    pub(super) accept_errors: Arc<AcceptErrors>,
    rules: Arc<ArcSwap<ClientRules>>,
}

impl<E> WorkerContext<E> {
    pub(super) fn new(engine: E, observers: Observers, drain: Drain, active: ActiveClientRules) -> Self {
        let ActiveClientRules { current: rules, connections, accept_errors } = active;
        Self { engine, observers, draining: drain.started(), drain, connections, accept_errors, rules }
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

    /// Proxy-Status of a rejection, if the peer gets it.
    pub(super) fn proxy_status(&self, peer: IpAddr, rejected: DetailedRejection) -> Option<HeaderValue> {
        let rules = self.rules.load();
        let disclosure = rules.proxy_status.disclosure(rules.trusted_proxies.contains(peer))?;
        let (cause, detail) = (Some(rejected.rejection.cause()), rejected.detail);
        ProxyStatus { cause, detail, next_hop: None, received_status: None }.value(disclosure)
    }

    /// Whether the rules of a listener let a peer connect.
    pub(super) fn may_connect(&self, listener: &str, peer: SocketAddr) -> bool {
        let rules = self.rules.load();
        let access = rules.access.iter().find(|(known, _)| **known == *listener);
        access.is_none_or(|(_, access)| access.verdict(peer.ip()) == Verdict::Allow)
    }

    /// Counts a connection, if the limits allow one more.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<Slot, LimitReached> {
        // Port 0 stands for a client of a Unix-domain socket. Such a peer and a trusted proxy connect on behalf
        // of many clients.
        let has_many_clients = peer.port() == 0 || self.rules.load().trusted_proxies.contains(peer.ip());
        self.connections.admit((!has_many_clients).then(|| ClientKey::from(peer.ip())))
    }
}
