//! What is known about a client's connection: made by the listener that owns it, read by every
//! request on it.
//!
//! The two cannot import each other, so what one has to tell the other goes through here: who is at
//! the other end and how it came, towards the requests; that a backend agreed to switch protocols, or has
//! answered before the request's end, and whether the client was told that the connection goes on, towards
//! the listener; what was wrong with a body, towards the requests again.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use pingora_core::protocols::Digest;
use pingora_core::protocols::raw_connect::ProxyDigest;

use crate::http::rejection::Refusal;

/// What a listener does to every request, whatever its route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Sends clients to the same address over HTTPS, at this port.
    pub redirect_to_https: Option<u16>,
    /// The value of `Strict-Transport-Security` on every answer.
    pub strict_transport_security: Option<HeaderValue>,
    /// Where the listener says how the balancer itself is.
    pub health: HealthPaths,
}

/// The paths at which a listener says how the balancer itself is, instead of passing the request on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthPaths {
    /// Whether the process is alive.
    pub live: Option<String>,
    /// Whether clients may come.
    pub ready: Option<String>,
}

/// One connection of a client.
#[derive(Debug)]
pub struct Connection {
    /// The client's end: the socket's, or what a trusted proxy said by the PROXY protocol.
    pub peer: SocketAddr,
    /// Our end, likewise.
    pub local: Option<SocketAddr>,
    /// The peer's address as a header field says it.
    pub peer_text: HeaderValue,
    /// Whether it came over TLS.
    pub tls: bool,
    /// What its listener does to every request.
    pub policy: Arc<Policy>,
    switched: AtomicBool,
    answered: AtomicBool,
    kept: AtomicBool,
    taken: AtomicU64,
    fault: OnceLock<Refusal>,
}

impl Connection {
    /// A connection on which nothing has happened yet.
    #[must_use]
    pub fn new(peer: SocketAddr, local: Option<SocketAddr>, tls: bool, policy: Arc<Policy>) -> Self {
        Self {
            peer,
            local,
            peer_text: text_of(peer.ip()),
            tls,
            policy,
            switched: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            kept: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            fault: OnceLock::new(),
        }
    }

    /// The connection in the form in which Pingora carries it along with every session: the digest
    /// of a proxy in between has room for anything. Downstream Pingora never looks at it.
    #[must_use]
    pub fn carry(self: &Arc<Self>) -> Arc<ProxyDigest> {
        let nothing = Box::new(http::Response::new(()).into_parts().0.into());
        Arc::new(ProxyDigest::new(nothing, Some(Box::new(Arc::clone(self)))))
    }

    /// The connection that a session of Pingora's came from.
    #[must_use]
    pub fn of(digest: &Digest) -> Option<&Arc<Self>> {
        digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// The peer's address as text.
    #[must_use]
    pub fn peer_text(&self) -> &str {
        self.peer_text.to_str().unwrap_or_default()
    }

    /// Says that the protocol was switched (101): from here on the bytes are no longer HTTP.
    pub fn switch(&self) {
        self.switched.store(true, Ordering::Relaxed);
    }

    /// Whether the protocol was switched.
    #[must_use]
    pub fn is_switched(&self) -> bool {
        self.switched.load(Ordering::Relaxed)
    }

    /// Says that a request begins: what was said of the one before no longer holds.
    pub fn begin_request(&self) {
        self.answered.store(false, Ordering::Relaxed);
        self.kept.store(false, Ordering::Relaxed);
    }

    /// Says that the client got a whole answer which lets the connection go on.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Whether the client was told that the connection goes on.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Says that the answer is complete although the request is not.
    pub fn end_answer(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether the answer was complete before the request was.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Says that the client took so many bytes.
    pub fn take(&self, bytes: usize) {
        // Only the task that serves the connection writes here, so no addition is lost; a count of
        // bytes in memory fits into 64 bits.
        self.taken.store(self.taken() + bytes as u64, Ordering::Relaxed);
    }

    /// How many bytes the client took so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Says what was wrong with the body that is being received. The first word counts: nothing
    /// behind it can be read.
    pub fn blame(&self, refusal: Refusal) {
        self.fault.get_or_init(|| refusal);
    }

    /// What was wrong with the body that was being received.
    #[must_use]
    pub fn fault(&self) -> Option<Refusal> {
        self.fault.get().copied()
    }
}

fn text_of(address: IpAddr) -> HeaderValue {
    // The text of an address is plain ASCII; a header field can always say it.
    HeaderValue::try_from(address.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_counts() {
        let connection = Connection::new("192.0.2.1:9".parse().unwrap(), None, false, Arc::default());
        assert_eq!(connection.peer_text, "192.0.2.1");
        assert_eq!(connection.fault(), None);
        connection.blame(Refusal::bad_request("one"));
        connection.blame(Refusal::bad_request("two"));
        assert_eq!(connection.fault().map(|fault| fault.detail), Some("one"));
    }
}
