//! What is known about one backend while it is used: its health and its requests in flight.
//!
//! An endpoint rides in the extensions of Pingora's `Backend`, so that selection sees it without a
//! lookup, and is kept by address across discoveries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use parking_lot::Mutex;

use super::health::Schedule;

/// What health checks say about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// No check has finished yet; such a backend is not used.
    Unknown = 0,
    /// It may take requests.
    Up = 1,
    /// It may not.
    Down = 2,
}

/// The live state of one backend.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    /// The address as text, for every access line.
    text: String,
    health: AtomicU8,
    in_flight: AtomicU32,
    /// Only the pool's health check task takes this lock; requests read `health`.
    pub(super) schedule: Mutex<Schedule>,
}

impl Endpoint {
    /// A backend about which nothing is known yet.
    #[must_use]
    pub fn new(address: SocketAddr, health: Health) -> Self {
        Self {
            address,
            text: address.to_string(),
            health: AtomicU8::new(health as u8),
            in_flight: AtomicU32::new(0),
            schedule: Mutex::new(Schedule::default()),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the checks say.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Unknown,
            1 => Health::Up,
            _ => Health::Down,
        }
    }

    /// Whether it may take requests.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.health() == Health::Up
    }

    pub(super) fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Relaxed);
    }

    /// How many requests it is working on for this process.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// One request in flight at a backend; dropping it ends the count.
#[derive(Debug)]
pub struct Lease(Arc<Endpoint>);

impl Lease {
    /// Counts a request at `endpoint`.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }

    /// The backend that is working on the request.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_until_it_is_dropped() {
        let endpoint = Arc::new(Endpoint::new("127.0.0.1:1".parse().unwrap(), Health::Unknown));
        let lease = Lease::new(Arc::clone(&endpoint));
        let second = Lease::new(Arc::clone(&endpoint));
        assert_eq!(endpoint.in_flight(), 2);
        drop(lease);
        assert_eq!(second.endpoint().in_flight(), 1);
        drop(second);
        assert_eq!(endpoint.in_flight(), 0);
    }
}
