//! Failed attempts of clients to prove who they are: after too many, a client must wait.
//!
//! An attempt counts when it begins, and no longer once it succeeds. So attempts at the same time cannot exceed the limit,
//! and a client that disconnects does not avoid the count.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quick_cache::unsync::Cache;

use crate::http::client_address::ClientKey;

/// The clients that are remembered; more would replace those with the fewest failures of late.
const CLIENTS_MAX: usize = 65_536;

/// The attempts of a client since its first one in the window.
#[derive(Clone, Copy, Debug)]
struct Attempts {
    since: Instant,
    count: u32,
}

/// The failed attempts of all clients.
#[derive(Debug)]
pub struct Failures {
    limit: u32,
    window: Duration,
    clients: Mutex<Cache<u64, Attempts>>,
}

impl Failures {
    /// At most `limit` failed attempts of a client in a window, which begins with the first one.
    #[must_use]
    pub fn new(limit: u32, window: Duration) -> Self {
        Self { limit, window, clients: Mutex::new(Cache::new(CLIENTS_MAX)) }
    }

    /// Whether a client may make an attempt.
    ///
    /// # Errors
    /// How long it must wait.
    pub fn check(&self, client: ClientKey, now: Instant) -> Result<(), Duration> {
        self.check_attempts(self.clients.lock().get(&client.0), now)
    }

    /// Counts an attempt that begins.
    ///
    /// # Errors
    /// How long the client must wait.
    pub fn begin(&self, client: ClientKey, now: Instant) -> Result<(), Duration> {
        let mut clients = self.clients.lock();
        self.check_attempts(clients.get(&client.0), now)?;
        let known = clients.get(&client.0).copied().filter(|attempts| !self.left(*attempts, now).is_zero());
        let attempts = known.unwrap_or(Attempts { since: now, count: 0 });
        clients.insert(client.0, Attempts { count: attempts.count.saturating_add(1), ..attempts });
        Ok(())
    }

    /// An attempt has succeeded.
    pub fn forgive(&self, client: ClientKey) {
        if let Some(mut attempts) = self.clients.lock().get_mut(&client.0) {
            attempts.count = attempts.count.saturating_sub(1);
        }
    }

    fn check_attempts(&self, attempts: Option<&Attempts>, now: Instant) -> Result<(), Duration> {
        let exceeded = attempts.filter(|attempts| attempts.count >= self.limit);
        match exceeded.map_or(Duration::ZERO, |attempts| self.left(*attempts, now)) {
            Duration::ZERO => Ok(()),
            left => Err(left),
        }
    }

    fn left(&self, attempts: Attempts, now: Instant) -> Duration {
        self.window.saturating_sub(now.saturating_duration_since(attempts.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn client_waits_after_too_many_failures_until_the_window_ends() {
        let (failures, now, client) = (Failures::new(3, WINDOW), Instant::now(), ClientKey(1));
        for second in 0..3 {
            assert_eq!(failures.begin(client, now + Duration::from_secs(second)), Ok(()));
        }
        let later = now + Duration::from_secs(10);
        assert_eq!(failures.begin(client, later), Err(Duration::from_secs(50)));
        assert_eq!(failures.check(client, later), Err(Duration::from_secs(50)));
        assert_eq!(failures.begin(ClientKey(2), later), Ok(()), "another client");
        assert_eq!(failures.begin(client, now + WINDOW), Ok(()));
        assert_eq!(failures.check(client, now + WINDOW), Ok(()), "a new window");
    }

    #[test]
    fn success_does_not_count_and_attempts_at_the_same_time_do() {
        let (failures, now, client) = (Failures::new(2, WINDOW), Instant::now(), ClientKey(1));
        for _ in 0..10 {
            failures.begin(client, now).unwrap();
            failures.forgive(client);
        }
        failures.begin(client, now).unwrap();
        failures.begin(client, now).unwrap();
        assert!(failures.begin(client, now).is_err(), "two attempts are on their way");
        failures.forgive(client);
        assert!(failures.begin(client, now).is_ok());
    }

    #[test]
    fn memory_is_bounded_for_any_number_of_clients() {
        let (failures, now) = (Failures::new(1, WINDOW), Instant::now());
        for client in 0..2 * CLIENTS_MAX as u64 {
            failures.begin(ClientKey(client), now).unwrap();
        }
        assert!(failures.clients.lock().len() <= CLIENTS_MAX);
    }
}
