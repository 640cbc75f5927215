//! Limits failed logins per client: an IPv4 address or an IPv6 /64. The memory is bounded.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::http::client_address::ClientKey;

/// The period in which failures are counted, from the first one.
const WINDOW: Duration = Duration::from_secs(60);
/// The failures after which a client is blocked for the rest of the period.
const FAILURES_MAX: u32 = 10;
/// The most clients that are remembered. Beyond it, the one with the oldest period is forgotten.
const CLIENTS_MAX: usize = 4096;
/// The most events in a period, for all clients together.
const EVENTS_MAX: u32 = 20;

/// The failures of one client.
#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Instant,
    count: u32,
}

impl Failures {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Whether an event reports it.
    pub report: bool,
    /// Whether the client is blocked from now on.
    pub blocked: bool,
}

/// Failed logins by client.
#[derive(Debug, Default)]
pub struct LoginLimit {
    clients: HashMap<ClientKey, Failures>,
    events: Option<Failures>,
}

impl LoginLimit {
    /// How long the client is still blocked; `None` if it is not.
    #[must_use]
    pub fn blocked(&self, client: &ClientKey, now: Instant) -> Option<Duration> {
        let failures = self.clients.get(client).filter(|failures| failures.count >= FAILURES_MAX)?;
        (failures.since + WINDOW).checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Counts a failure.
    pub fn failed(&mut self, client: ClientKey, now: Instant) -> Failed {
        if !self.clients.contains_key(&client) && self.clients.len() >= CLIENTS_MAX {
            self.forget(now);
        }
        let failures = self.clients.entry(client).or_insert(Failures { since: now, count: 0 });
        if failures.is_over(now) {
            *failures = Failures { since: now, count: 0 };
        }
        failures.count = failures.count.saturating_add(1);
        let (first, blocked) = (failures.count == 1, failures.count == FAILURES_MAX);
        Failed { report: (first || blocked) && self.may_report(now), blocked }
    }

    /// The number of remembered clients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there was no failure.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Makes room for one client.
    fn forget(&mut self, now: Instant) {
        self.clients.retain(|_, failures| !failures.is_over(now));
        if self.clients.len() >= CLIENTS_MAX {
            let oldest = self.clients.iter().min_by_key(|(_, failures)| failures.since).map(|(client, _)| *client);
            oldest.and_then(|client| self.clients.remove(&client));
        }
    }

    fn may_report(&mut self, now: Instant) -> bool {
        let events = self.events.get_or_insert(Failures { since: now, count: 0 });
        if events.is_over(now) {
            *events = Failures { since: now, count: 0 };
        }
        events.count = events.count.saturating_add(1);
        events.count <= EVENTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn client(number: u32) -> ClientKey {
        ClientKey::from(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)))
    }

    #[test]
    fn client_is_blocked_after_ten_failures_until_a_minute_after_the_first() {
        let (mut limit, start) = (LoginLimit::default(), Instant::now());
        for count in 1..=10 {
            assert_eq!(limit.blocked(&client(1), start), None, "{count}");
            let failed = limit.failed(client(1), start + Duration::from_secs(count));
            assert_eq!(failed, Failed { report: count == 1 || count == 10, blocked: count == 10 }, "{count}");
        }
        let now = start + Duration::from_secs(31);
        assert_eq!(limit.blocked(&client(1), now), Some(Duration::from_secs(30)));
        assert_eq!(limit.blocked(&client(2), now), None);
        assert_eq!(limit.blocked(&client(1), start + Duration::from_secs(61)), None);
        assert!(limit.failed(client(1), start + Duration::from_secs(62)).report, "a new period");
        assert_eq!(limit.blocked(&client(1), start + Duration::from_secs(62)), None);
    }

    #[test]
    fn memory_and_events_are_bounded_for_any_number_of_clients() {
        let (mut limit, start) = (LoginLimit::default(), Instant::now());
        let reported = (0..20_000).filter(|number| limit.failed(client(*number), start).report).count();
        assert_eq!((limit.len(), reported), (CLIENTS_MAX, EVENTS_MAX as usize));
    }
}
