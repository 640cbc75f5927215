//! Pingora's connectors for health checks, shared by all pools of the process.
//!
//! A connector reads the system's certificate authorities when it is created, which takes milliseconds. With
//! one connector per check, as in Pingora, a thousand pools take seconds. They are created at first use, so
//! that `l7lb check` creates none.

use std::sync::{Arc, OnceLock};

use pingora_core::connectors::{ConnectorOptions, TransportConnector, http};

use crate::tls::system_authorities;

/// How many idle connections a connector keeps; as many as without options.
const IDLE_MAX: usize = 128;

/// The connectors. Cheap to clone; all clones share them.
#[derive(Clone, Default)]
pub struct Connectors(Arc<Made>);

#[derive(Default)]
struct Made {
    /// The file with the authorities that verify backends, instead of those of the system.
    ca_file: Option<String>,
    transport: OnceLock<TransportConnector>,
    http: OnceLock<http::Connector>,
}

impl Connectors {
    /// Connectors that verify backends against the authorities in `ca_file`, or those of the system.
    #[must_use]
    pub fn new(ca_file: Option<String>) -> Self {
        Self(Arc::new(Made { ca_file, ..Made::default() }))
    }

    /// The connector for TCP and TLS.
    pub(in crate::pool) fn transport(&self) -> &TransportConnector {
        self.0.transport.get_or_init(|| TransportConnector::new(Some(self.options())))
    }

    /// The connector for HTTP.
    pub(in crate::pool) fn http(&self) -> &http::Connector {
        self.0.http.get_or_init(|| http::Connector::new(Some(self.options())))
    }

    fn options(&self) -> ConnectorOptions {
        let mut options = ConnectorOptions::new(IDLE_MAX);
        let file = system_authorities::file_for_connectors(self.0.ca_file.as_deref());
        // The process has reported the reason at its start.
        options.ca_file = file.unwrap_or_else(|(none, _)| Some(none));
        options
    }
}
