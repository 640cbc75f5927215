//! Pingora's connectors for health checks, one of each for all pools of the process.
//!
//! A connector reads the system's authorities when it is made, which takes milliseconds; with one for each
//! check, as Pingora's own checks have it, a thousand pools take seconds. They are made when they are first
//! asked for, so that whoever only checks a configuration makes none.

use std::sync::{Arc, OnceLock};

use pingora_core::connectors::{TransportConnector, http};

/// The connectors. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Connectors(Arc<Made>);

#[derive(Default)]
struct Made {
    transport: OnceLock<TransportConnector>,
    http: OnceLock<http::Connector>,
}

impl Connectors {
    /// For connections alone.
    pub(in crate::pool) fn transport(&self) -> &TransportConnector {
        self.0.transport.get_or_init(|| TransportConnector::new(None))
    }

    /// For HTTP.
    pub(in crate::pool) fn http(&self) -> &http::Connector {
        self.0.http.get_or_init(|| http::Connector::new(None))
    }
}
