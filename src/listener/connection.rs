//! The state of a client's connection, shared between the listener that owns it and the requests on it.
//!
//! The listener does not depend on the proxy, so they exchange this state:
//! - The listener sets the addresses of the connection, whether it uses TLS, and the fault in a request body.
//! - The proxy sets whether the protocol was switched, whether the response is complete before the request, and
//!   whether the response promised keep-alive.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::HeaderValue;
use pingora_core::protocols::Digest;
use pingora_core::protocols::raw_connect::ProxyDigest;

use crate::http::rejection::DetailedRejection;
use crate::tls::HandshakeResult;

/// The settings of a listener for every request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The first address of the listener as configured, by which its filters are found.
    pub listener: Arc<str>,
    /// Redirects to the same URL with HTTPS at this port.
    pub redirect_to_https: Option<u16>,
    /// The value of `Strict-Transport-Security` in every response.
    pub strict_transport_security: Option<HeaderValue>,
    /// The paths of health checks of the balancer itself.
    pub health: HealthPaths,
}

/// The paths at which a listener reports the health of the balancer itself instead of forwarding the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthPaths {
    /// Liveness of the process.
    pub live: Option<String>,
    /// Readiness for requests.
    pub ready: Option<String>,
}

/// One connection of a client.
#[derive(Debug)]
pub struct Connection {
    /// The client's address: of the socket, or from the PROXY protocol header of a trusted proxy.
    pub peer: SocketAddr,
    /// The local address: of the socket, or from the PROXY protocol header.
    pub local: Option<SocketAddr>,
    /// When it was accepted.
    pub opened: Instant,
    /// The peer's address as a header value.
    pub peer_text: HeaderValue,
    /// The result of the TLS handshake; `None` without TLS.
    pub handshake: Option<HandshakeResult>,
    /// The settings of its listener.
    pub policy: Arc<Policy>,
    switched: AtomicBool,
    response_complete: AtomicBool,
    keepalive: AtomicBool,
    bytes_sent: AtomicU64,
    fault: OnceLock<DetailedRejection>,
}

impl Connection {
    /// The state of a new connection.
    #[must_use]
    pub fn new(
        (peer, local): (SocketAddr, Option<SocketAddr>),
        opened: Instant,
        handshake: Option<HandshakeResult>,
        policy: Arc<Policy>,
    ) -> Self {
        Self {
            peer,
            local,
            opened,
            peer_text: text_of(peer.ip()),
            handshake,
            policy,
            switched: AtomicBool::new(false),
            response_complete: AtomicBool::new(false),
            keepalive: AtomicBool::new(false),
            bytes_sent: AtomicU64::new(0),
            fault: OnceLock::new(),
        }
    }

    /// The connection in the form in which Pingora carries it with every session: the proxy digest has room for
    /// user data. Pingora does not use it downstream.
    #[must_use]
    pub fn to_proxy_digest(self: &Arc<Self>) -> Arc<ProxyDigest> {
        let nothing = Box::new(http::Response::new(()).into_parts().0.into());
        Arc::new(ProxyDigest::new(nothing, Some(Box::new(Arc::clone(self)))))
    }

    /// The connection of a Pingora session.
    #[must_use]
    pub fn of(digest: &Digest) -> Option<&Arc<Self>> {
        digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// Whether it uses TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.handshake.is_some()
    }

    /// The peer's address as text.
    #[must_use]
    pub fn peer_text(&self) -> &str {
        self.peer_text.to_str().unwrap_or_default()
    }

    /// Marks the protocol switch (101): from here on the bytes are not HTTP.
    pub fn mark_switched(&self) {
        self.switched.store(true, Ordering::Relaxed);
    }

    /// Whether the protocol was switched.
    #[must_use]
    pub fn is_switched(&self) -> bool {
        self.switched.load(Ordering::Relaxed)
    }

    /// Resets the state for a new request.
    pub fn begin_request(&self) {
        self.response_complete.store(false, Ordering::Relaxed);
        self.keepalive.store(false, Ordering::Relaxed);
    }

    /// Marks that the client got a complete response with keep-alive.
    pub fn mark_keepalive(&self) {
        self.keepalive.store(true, Ordering::Relaxed);
    }

    /// Whether the last response promised keep-alive.
    #[must_use]
    pub fn is_keepalive(&self) -> bool {
        self.keepalive.load(Ordering::Relaxed)
    }

    /// Marks that the response is complete although the request is not.
    pub fn mark_response_complete(&self) {
        self.response_complete.store(true, Ordering::Relaxed);
    }

    /// Whether the response was complete before the request.
    #[must_use]
    pub fn is_response_complete(&self) -> bool {
        self.response_complete.load(Ordering::Relaxed)
    }

    /// Counts bytes that were written to the client.
    pub fn add_bytes_sent(&self, bytes: usize) {
        // Only the task of the connection writes here, so no addition is lost; a count of bytes in memory fits
        // into 64 bits.
        self.bytes_sent.store(self.bytes_sent() + bytes as u64, Ordering::Relaxed);
    }

    /// The bytes that were written to the client so far.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Stores the fault in the body that is being received. Only the first one counts: nothing after it can be
    /// parsed.
    pub fn record_fault(&self, rejection: DetailedRejection) {
        self.fault.get_or_init(|| rejection);
    }

    /// The fault in the received body.
    #[must_use]
    pub fn fault(&self) -> Option<DetailedRejection> {
        self.fault.get().copied()
    }
}

fn text_of(address: IpAddr) -> HeaderValue {
    // An address is plain ASCII and always a valid header value.
    HeaderValue::try_from(address.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_fault_is_kept() {
        let connection = Connection::new(("192.0.2.1:9".parse().unwrap(), None), Instant::now(), None, Arc::default());
        assert_eq!(connection.peer_text, "192.0.2.1");
        assert_eq!(connection.fault(), None);
        connection.record_fault(DetailedRejection::bad_request("one"));
        connection.record_fault(DetailedRejection::bad_request("two"));
        assert_eq!(connection.fault().map(|fault| fault.detail), Some("one"));
    }
}
