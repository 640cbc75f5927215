//! Idle HTTP/1.1 connections to the backends, of one worker.
//!
//! Pingora's pool spawns a task and sets a timer for each idle connection, and asks the kernel for the peer's address
//! before each reuse; together that is a sixth of a short request. Here one sweep looks for connections that the
//! backend has closed or that were idle for too long. All idle connections have the same waker, which starts a sweep
//! when a backend closes one. So the sweep knows when that was, and
//! [`IdleLimit`](crate::pool::learned::idle_limit::IdleLimit) learns how long the backend keeps an idle connection.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;

use crate::pool::Endpoint;

/// The time between two sweeps without a closed connection. A connection that was idle for too long is not used, but
/// stays open until the next sweep.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// From the close of a connection to the sweep, so that one sweep finds many closes.
const SWEEP_DELAY: Duration = Duration::from_millis(2);

/// When there are too many connections, one of this many is closed.
const REMOVED_PART: usize = 32;

/// The idle connections of a worker. Cheap to clone.
#[derive(Clone)]
pub(super) struct IdleConnections {
    idle: Arc<Mutex<Idle>>,
    most: usize,
    closed: Arc<Closed>,
    waker: Waker,
}

/// Notified when a backend closes an idle connection.
struct Closed(Notify);

impl Wake for Closed {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// An idle connection.
pub(super) struct IdleConnection<S = Stream> {
    pub(super) stream: S,
    /// When the last exchange on it ended.
    pub(super) since: Instant,
    /// How long it may be idle.
    pub(super) timeout: Duration,
    pub(super) endpoint: Arc<Endpoint>,
}

impl<S: IsOpen> IdleConnection<S> {
    fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Whether it can be used at `now`. The limit of the backend counts as it is known now.
    fn is_usable(&mut self, now: Instant, waker: &Waker) -> bool {
        let idle = self.idle(now);
        let limit = self.endpoint.idle_limit();
        match self.stream.is_open(waker) {
            Ok(open) => open && idle < limit.usable_for(self.timeout),
            Err(Close) => {
                limit.observe_close(idle, now);
                false
            }
        }
    }
}

/// The connections by the key of their peer, each list in the order of release.
struct Idle<S = Stream> {
    by_peer: HashMap<u64, Vec<IdleConnection<S>>, ahash::RandomState>,
    count: usize,
}

impl<S> Default for Idle<S> {
    fn default() -> Self {
        Self { by_peer: HashMap::default(), count: 0 }
    }
}

/// The backend has closed the connection.
pub(super) struct Close;

/// Whether an idle connection is still open.
pub(super) trait IsOpen {
    /// False if it is open but must not be used. `waker` is woken when that changes.
    fn is_open(&mut self, waker: &Waker) -> Result<bool, Close>;
}

impl IsOpen for Stream {
    /// A backend sends nothing on an idle connection, so bytes make it unusable.
    fn is_open(&mut self, waker: &Waker) -> Result<bool, Close> {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        match Pin::new(self).poll_read(&mut Context::from_waker(waker), &mut buffer) {
            Poll::Pending => Ok(true),
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Ok(false),
            Poll::Ready(_) => Err(Close),
        }
    }
}

impl IdleConnections {
    /// At most `most` connections; the sweep runs in the current runtime.
    pub(super) fn new(most: usize) -> Self {
        let closed = Arc::new(Closed(Notify::new()));
        let waker = Arc::clone(&closed).into();
        let idle = Self { idle: Arc::new(Mutex::new(Idle::default())), most, closed, waker };
        tokio::spawn(idle.clone().sweep());
        idle
    }

    /// The last released connection to the peer with this key that can be used at `now`, and for how long it was idle.
    pub(super) fn take(&self, key: u64, now: Instant) -> Option<(Stream, Duration)> {
        self.idle.lock().take(key, now)
    }

    /// Keeps a connection that has just become idle. If there are too many, the oldest ones are closed.
    pub(super) fn put(&self, key: u64, mut connection: IdleConnection) {
        if connection.is_usable(connection.since, &self.waker) {
            self.idle.lock().put(key, connection, self.most);
        }
    }

    /// Closes connections until the process ends.
    #[expect(clippy::disallowed_methods, reason = "this is the clock of the idle connections")]
    async fn sweep(self) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.closed.0.notified() => tokio::time::sleep(SWEEP_DELAY).await,
            }
            self.idle.lock().sweep(Instant::now(), &self.waker);
        }
    }
}

impl<S: IsOpen> Idle<S> {
    fn take(&mut self, key: u64, now: Instant) -> Option<(S, Duration)> {
        let connections = self.by_peer.get_mut(&key)?;
        while let Some(mut connection) = connections.pop() {
            self.count -= 1;
            if connection.is_usable(now, Waker::noop()) {
                let idle = connection.idle(now);
                return Some((connection.stream, idle));
            }
        }
        None
    }

    fn put(&mut self, key: u64, connection: IdleConnection<S>, most: usize) {
        self.by_peer.entry(key).or_default().push(connection);
        self.count += 1;
        if self.count > most {
            self.remove_oldest();
        }
    }

    /// Closes the oldest connections: one of 32, so that finding them costs little for each released connection.
    fn remove_oldest(&mut self) {
        let mut released: Vec<Instant> = self.by_peer.values().flatten().map(|connection| connection.since).collect();
        let surplus = (released.len() / REMOVED_PART).max(1).min(released.len());
        let Some(last) = surplus.checked_sub(1) else { return };
        let (_, newest, _) = released.select_nth_unstable(last);
        let (newest, mut left) = (*newest, surplus);
        self.by_peer.retain(|_, connections| {
            // Each list has the order of release.
            let old = connections.iter().take(left).take_while(|connection| connection.since <= newest).count();
            connections.drain(..old);
            left -= old;
            !connections.is_empty()
        });
        self.count -= surplus - left;
    }

    fn sweep(&mut self, now: Instant, waker: &Waker) {
        self.by_peer.retain(|_, connections| {
            connections.retain_mut(|connection| {
                let usable = connection.is_usable(now, waker);
                if usable {
                    connection.endpoint.idle_limit().observe_open(connection.idle(now));
                }
                usable
            });
            !connections.is_empty()
        });
        self.count = self.by_peer.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

    use super::*;
    use crate::pool::{BackendSettings, PoolShared};

    /// A connection with a name, and whether it is open.
    #[derive(Debug, PartialEq)]
    struct Fake(&'static str, bool);

    impl IsOpen for Fake {
        fn is_open(&mut self, _: &Waker) -> Result<bool, Close> {
            if self.1 { Ok(true) } else { Err(Close) }
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    struct Bench {
        idle: Idle<Fake>,
        endpoint: Arc<Endpoint>,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            let address = "127.0.0.1:1".parse().unwrap();
            let endpoint = Endpoint::new(address, BackendSettings::default(), PoolShared::default(), now);
            Self { idle: Idle::default(), endpoint: Arc::new(endpoint), now }
        }

        fn put(&mut self, key: u64, fake: Fake, timeout: Duration, most: usize) {
            let endpoint = Arc::clone(&self.endpoint);
            self.idle.put(key, IdleConnection { stream: fake, since: self.now, timeout, endpoint }, most);
        }

        fn take(&mut self, key: u64) -> Option<Fake> {
            self.idle.take(key, self.now).map(|(fake, _)| fake)
        }
    }

    #[test]
    fn last_released_usable_connection_of_the_peer_is_taken() {
        let mut bench = Bench::new();
        for (key, fake) in
            [(1, Fake("a", true)), (1, Fake("b", true)), (1, Fake("closed", false)), (2, Fake("c", true))]
        {
            bench.put(key, fake, SECOND, 9);
        }
        assert_eq!(bench.take(1), Some(Fake("b", true)));
        assert_eq!((bench.take(1), bench.take(1), bench.take(3)), (Some(Fake("a", true)), None, None));
        assert_eq!((bench.take(2), bench.idle.count), (Some(Fake("c", true)), 0));
    }

    #[test]
    fn expired_and_closed_connections_are_swept() {
        let mut bench = Bench::new();
        bench.put(1, Fake("short", true), SECOND, 9);
        bench.put(1, Fake("closed", false), SECOND * 9, 9);
        bench.put(2, Fake("long", true), SECOND * 9, 9);
        bench.put(3, Fake("endless", true), Duration::MAX, 9);
        bench.idle.sweep(bench.now + SECOND, Waker::noop());
        assert_eq!((bench.idle.count, bench.idle.by_peer.len()), (2, 2));
        assert_eq!((bench.take(1), bench.take(2)), (None, Some(Fake("long", true))));
    }

    #[test]
    fn oldest_connection_is_closed_if_there_are_too_many() {
        let mut bench = Bench::new();
        bench.put(1, Fake("old", true), SECOND, 2);
        bench.now += SECOND / 2;
        bench.put(1, Fake("new", true), SECOND, 2);
        bench.put(2, Fake("other", true), SECOND, 2);
        assert_eq!(bench.idle.count, 2);
        assert_eq!((bench.take(1), bench.take(1)), (Some(Fake("new", true)), None));
    }

    #[test]
    fn connection_is_not_used_near_the_limit_that_the_backend_has_shown() {
        let mut bench = Bench::new();
        bench.put(1, Fake("idle", true), SECOND * 50, 9);
        for _ in 0..3 {
            bench.put(2, Fake("closed", false), SECOND * 50, 9);
            bench.now += SECOND;
            assert_eq!(bench.take(2), None);
        }
        assert_eq!(bench.endpoint.idle_limit().get(), Some(SECOND));
        assert_eq!(bench.take(1), None, "idle for three seconds");
        bench.put(1, Fake("recent", true), SECOND * 50, 9);
        bench.now += SECOND / 2;
        assert_eq!(bench.idle.take(1, bench.now), Some((Fake("recent", true), SECOND / 2)));
    }
}
