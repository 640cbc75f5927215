//! Pingora's connectors for health checks, shared by all pools of the process.
//!
//! A connector reads the system's certificate authorities when it is created, which takes milliseconds. With
//! one connector per check, as in Pingora, a thousand pools take seconds. They are created at first use, so
//! that `l7lb check` creates none.

use std::sync::{Arc, OnceLock};

use pingora_core::connectors::{TransportConnector, http};

/// The connectors. Cheap to clone; all clones share them.
#[derive(Clone, Default)]
pub struct Connectors(Arc<Made>);

#[derive(Default)]
struct Made {
    transport: OnceLock<TransportConnector>,
    http: OnceLock<http::Connector>,
}

impl Connectors {
    /// The connector for TCP and TLS.
    pub(in crate::pool) fn transport(&self) -> &TransportConnector {
        self.0.transport.get_or_init(|| TransportConnector::new(None))
    }

    /// The connector for HTTP.
    pub(in crate::pool) fn http(&self) -> &http::Connector {
        self.0.http.get_or_init(|| http::Connector::new(None))
    }
}
