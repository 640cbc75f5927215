//! What serves the connections of one worker: its proxy, with a pool of backend connections of its
//! own, and the rules for clients.

use std::sync::Arc;

use pingora_proxy::HttpProxy;

use super::Drain;
use crate::client_timeouts::ClientTimeouts;
use crate::connection_limits::ConnectionLimits;
use crate::observe::AccessLog;
use crate::request_limits::RequestLimits;

/// The rules for clients, the same for all workers.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long they may take.
    pub timeouts: ClientTimeouts,
    /// How many they may be, and how much they may ask for.
    pub limits: ConnectionLimits,
    /// How large their requests may be.
    pub request_limits: RequestLimits,
}

/// What serves connections.
pub(super) struct Service<P> {
    pub(super) proxy: Arc<HttpProxy<P>>,
    pub(super) access_log: AccessLog,
    pub(super) drain: Drain,
    pub(super) timeouts: Arc<ClientTimeouts>,
    pub(super) limits: ConnectionLimits,
    request_limits: RequestLimits,
}

impl<P> Service<P> {
    pub(super) fn new(proxy: HttpProxy<P>, access_log: AccessLog, drain: Drain, rules: &Rules) -> Self {
        Self {
            proxy: Arc::new(proxy),
            access_log,
            drain,
            timeouts: Arc::new(rules.timeouts),
            limits: rules.limits,
            request_limits: rules.request_limits,
        }
    }

    /// How large requests may be.
    pub(super) fn request_limits(&self) -> RequestLimits {
        self.request_limits
    }
}
