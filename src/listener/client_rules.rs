//! The settings that apply to clients: timeouts and limits. A reload replaces them while connections are open.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::client_timeouts::ClientTimeouts;
use super::connection_counts::ConnectionCounts;
use super::connection_limits::ConnectionLimits;
use crate::base::accept_errors::AcceptErrors;
use crate::http::access_rules::AddressRules;
use crate::http::client_address::TrustedProxies;
use crate::http::proxy_status::Audience;
use crate::http::request_limits::RequestLimits;

/// The settings that apply to clients.
#[derive(Clone, Debug)]
pub struct ClientRules {
    /// The client timeouts. A connection keeps the timeouts from its start.
    pub timeouts: Arc<ClientTimeouts>,
    /// The connection limits.
    pub limits: ConnectionLimits,
    /// The size limits of requests.
    pub request_limits: RequestLimits,
    /// The trusted proxies. The limit per client does not apply to their connections.
    pub trusted_proxies: TrustedProxies,
    /// Which clients get `Proxy-Status`.
    pub proxy_status: Audience,
    /// Which peers may connect, for the listeners with such rules, by the first address of the listener.
    pub access: Vec<(Arc<str>, AddressRules)>,
    /// The largest number of open connections: in total, and per client.
    pub max_connections: (usize, usize),
}

/// The active settings for clients. All workers share them, and a replacement takes effect in all workers at
/// the same time.
#[derive(Clone)]
pub struct ActiveClientRules {
    pub(super) current: Arc<ArcSwap<ClientRules>>,
    pub(super) connections: ConnectionCounts,
    pub(super) accept_errors: Arc<AcceptErrors>,
}

impl ActiveClientRules {
    /// The initial settings.
    #[must_use]
    pub fn new(rules: ClientRules) -> Self {
        let (total, per_client) = rules.max_connections;
        Self {
            current: Arc::new(ArcSwap::from_pointee(rules)),
            connections: ConnectionCounts::new(total, per_client),
            accept_errors: Arc::default(),
        }
    }

    /// Replaces the settings. Request settings apply from the next request on, connection settings from the
    /// next connection on. Open connections stay open.
    pub fn replace(&self, rules: ClientRules) {
        let (total, per_client) = rules.max_connections;
        self.connections.set_limits(total, per_client);
        self.current.store(Arc::new(rules));
    }
}
