//! Idle HTTP/1.1 connections to the backends, of one worker.
//!
//! Pingora's pool spawns a task and sets a timer for each idle connection, and asks the kernel for the peer's address
//! before each reuse; together that is a sixth of a short request. Here one sweep looks for connections that the
//! backend has closed or that were idle for too long. A connection that was closed since then is found when it is
//! taken.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

/// The time between two sweeps, which is also the precision of the keep-alive timeout.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// The idle connections of a worker. Cheap to clone.
#[derive(Clone)]
pub(super) struct IdleConnections {
    idle: Arc<Mutex<Idle>>,
    most: usize,
}

/// A connection, until it has been idle for too long.
struct Connection<S> {
    stream: S,
    expires_at: Instant,
}

/// The connections by the key of their peer, each list in the order of release.
struct Idle<S = Stream> {
    by_peer: HashMap<u64, Vec<Connection<S>>, ahash::RandomState>,
    count: usize,
    /// The time of the last sweep. Requests do not read the clock.
    now: Instant,
}

/// Whether an idle connection can still be used.
trait IsUsable {
    fn is_usable(&mut self) -> bool;
}

impl IsUsable for Stream {
    /// A backend sends nothing on an idle connection: a byte, the end or an error makes it unusable.
    fn is_usable(&mut self) -> bool {
        let mut byte = [0];
        Pin::new(self).poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut byte)).is_pending()
    }
}

impl IdleConnections {
    /// At most `most` connections; the sweep runs in the current runtime.
    pub(super) fn new(most: usize, now: Instant) -> Self {
        let idle = Self { idle: Arc::new(Mutex::new(Idle::new(now))), most };
        tokio::spawn(idle.clone().sweep());
        idle
    }

    /// The last released connection to the peer with this key that can be used.
    pub(super) fn take(&self, key: u64) -> Option<Stream> {
        self.idle.lock().take(key)
    }

    /// Keeps a connection for `timeout`. If there are too many, the oldest one is closed.
    pub(super) fn put(&self, key: u64, stream: Stream, timeout: Duration) {
        self.idle.lock().put(key, stream, timeout, self.most);
    }

    /// Closes connections until the process ends.
    #[expect(clippy::disallowed_methods, reason = "this is the clock of the idle connections")]
    async fn sweep(self) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            interval.tick().await;
            self.idle.lock().sweep(Instant::now());
        }
    }
}

impl<S: IsUsable> Idle<S> {
    fn new(now: Instant) -> Self {
        Self { by_peer: HashMap::default(), count: 0, now }
    }

    fn take(&mut self, key: u64) -> Option<S> {
        let connections = self.by_peer.get_mut(&key)?;
        while let Some(mut connection) = connections.pop() {
            self.count -= 1;
            if connection.stream.is_usable() {
                return Some(connection.stream);
            }
        }
        None
    }

    fn put(&mut self, key: u64, stream: S, timeout: Duration, most: usize) {
        // Without an overflow there is practically no timeout.
        let expires_at = self.now.checked_add(timeout).unwrap_or(self.now + Duration::from_secs(86_400));
        self.by_peer.entry(key).or_default().push(Connection { stream, expires_at });
        self.count += 1;
        if self.count > most {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        let lists = self.by_peer.values_mut().filter(|connections| !connections.is_empty());
        if let Some(list) = lists.min_by_key(|connections| connections.first().map(|first| first.expires_at)) {
            list.remove(0);
            self.count -= 1;
        }
    }

    fn sweep(&mut self, now: Instant) {
        self.now = now;
        self.by_peer.retain(|_, connections| {
            connections.retain_mut(|connection| connection.expires_at > now && connection.stream.is_usable());
            !connections.is_empty()
        });
        self.count = self.by_peer.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

    use super::*;

    /// A connection with a name, and whether it can be used.
    #[derive(Debug, PartialEq)]
    struct Fake(&'static str, bool);

    impl IsUsable for Fake {
        fn is_usable(&mut self) -> bool {
            self.1
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn last_released_usable_connection_of_the_peer_is_taken() {
        let mut idle = Idle::new(Instant::now());
        for (key, fake) in
            [(1, Fake("a", true)), (1, Fake("b", true)), (1, Fake("closed", false)), (2, Fake("c", true))]
        {
            idle.put(key, fake, SECOND, 9);
        }
        assert_eq!(idle.take(1), Some(Fake("b", true)));
        assert_eq!((idle.take(1), idle.take(1), idle.take(3)), (Some(Fake("a", true)), None, None));
        assert_eq!((idle.take(2), idle.count), (Some(Fake("c", true)), 0));
    }

    #[test]
    fn expired_and_closed_connections_are_swept() {
        let now = Instant::now();
        let mut idle = Idle::new(now);
        idle.put(1, Fake("short", true), SECOND, 9);
        idle.put(1, Fake("closed", false), SECOND * 9, 9);
        idle.put(2, Fake("long", true), SECOND * 9, 9);
        idle.put(3, Fake("endless", true), Duration::MAX, 9);
        idle.sweep(now + SECOND);
        assert_eq!((idle.count, idle.by_peer.len()), (2, 2));
        assert_eq!((idle.take(1), idle.take(2)), (None, Some(Fake("long", true))));
    }

    #[test]
    fn oldest_connection_is_closed_if_there_are_too_many() {
        let now = Instant::now();
        let mut idle = Idle::new(now);
        idle.put(1, Fake("old", true), SECOND, 2);
        idle.sweep(now + SECOND / 2);
        idle.put(1, Fake("new", true), SECOND, 2);
        idle.put(2, Fake("other", true), SECOND, 2);
        assert_eq!(idle.count, 2);
        assert_eq!((idle.take(1), idle.take(1)), (Some(Fake("new", true)), None));
    }
}
