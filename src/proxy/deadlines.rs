//! How long a backend may take over HTTP/1: until its answer begins, for each pause in it, and in all.
//!
//! Pingora has one read timeout for header and body. Ours differ, because an answer that has begun
//! may pause for longer than one may take to begin; and Pingora's is a timer for each read, which
//! for a short answer costs as much as writing its access line. So requests that wait for a backend
//! are entered into one list, progress only moves their due time, and a sweep ten times a second
//! shuts down the connections of those that are overdue, whereupon the read that waits there fails.
//!
//! A pause counts only while neither side moves: while a slow client takes what the backend sent
//! before, nobody reads from the backend. On HTTP/2 the client's connection is shared, so that it
//! moved says nothing; there each part of the answer that was handed on counts, which asks a client
//! for 64 KiB in the time that a backend may pause for.
//!
//! The sweep also ends waits at a backend that was ejected for its silence, where another backend can be
//! asked instead.
//!
//! By the time of the sweep a descriptor's number could belong to another connection; so the sweep
//! duplicates the descriptor first, and shuts it down only if both ends of the duplicate are those
//! that were entered.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::listener::connection::Connection;
use crate::pool::Endpoint;

/// How late a sweep may find an overdue answer.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Both ends of a connection to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    local: SocketAddr,
    backend: SocketAddr,
}

/// A connection to a backend: its descriptor, our end, and who is at the other.
pub(super) struct ToBackend {
    pub(super) fd: RawFd,
    pub(super) local: SocketAddr,
    pub(super) endpoint: Arc<Endpoint>,
}

/// A request that waits.
struct Wait {
    fd: RawFd,
    ends: Ends,
    /// The client's connection, whose movements count too, where it is this request's alone.
    client: Option<Arc<Connection>>,
    /// Milliseconds since the epoch of the list.
    due: AtomicU64,
    /// How long a pause may last, in milliseconds.
    limit: AtomicU64,
    /// When all must be over whatever moves, in milliseconds since the epoch of the list.
    end: AtomicU64,
    /// Until when another backend could give the answer that is owed, should this one be silent, in
    /// milliseconds since the epoch of the list; zero for never.
    rescued_until: AtomicU64,
    /// The backend, which may be removed meanwhile.
    endpoint: Arc<Endpoint>,
    /// What the client had taken when the sweep looked last.
    taken: AtomicU64,
    /// [`WAITS`], or why it does no more; only the sweep writes here.
    expired: AtomicU8,
}

const WAITS: u8 = 0;
const PAUSED: u8 = 1;
const ENDED: u8 = 2;
const REMOVED: u8 = 3;
const UNRESPONSIVE: u8 = 4;

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Nothing moved for too long.
    Pause,
    /// All took too long.
    End,
    /// The backend was removed, and too much time has passed since.
    Removal,
    /// The backend was ejected because it answers nobody.
    Unresponsive,
}

/// How long one connection to a backend is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Each pause.
    pub(super) pause: Duration,
    /// All of it, where there is a limit.
    pub(super) end: Option<Instant>,
}

struct List {
    epoch: Instant,
    waits: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    next: u64,
    entered: HashMap<u64, Arc<Wait>, ahash::RandomState>,
}

/// The requests that wait.
#[derive(Clone)]
pub(super) struct Deadlines(Arc<List>);

/// A running deadline; dropping it calls it off.
pub(super) struct Deadline {
    list: Deadlines,
    wait: Arc<Wait>,
    number: u64,
}

impl Deadlines {
    /// A list that nobody waits in. Times are kept relative to `epoch`.
    pub(super) fn new(epoch: Instant) -> Self {
        Self(Arc::new(List { epoch, waits: Mutex::default() }))
    }

    /// Starts a deadline for a connection.
    pub(super) fn start(&self, to: ToBackend, client: Option<Arc<Connection>>, limits: Limits) -> Deadline {
        let end = limits.end.map_or(u64::MAX, |end| milliseconds(end.saturating_duration_since(self.0.epoch)));
        let wait = Wait {
            fd: to.fd,
            ends: Ends { local: to.local, backend: to.endpoint.address() },
            endpoint: to.endpoint,
            rescued_until: AtomicU64::new(0),
            taken: AtomicU64::new(client.as_ref().map_or(0, |client| client.taken())),
            client,
            due: AtomicU64::new(u64::MAX),
            limit: AtomicU64::new(milliseconds(limits.pause)),
            end: AtomicU64::new(end),
            expired: AtomicU8::new(WAITS),
        };
        let wait = Arc::new(wait);
        let mut waits = self.0.waits.lock();
        let number = waits.next;
        waits.next = number.wrapping_add(1);
        waits.entered.insert(number, Arc::clone(&wait));
        drop(waits);
        Deadline { list: self.clone(), wait, number }
    }

    /// Looks for overdue answers until the process ends.
    #[expect(clippy::disallowed_methods, reason = "this is the clock of the deadlines")]
    pub(super) async fn sweep(self) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            interval.tick().await;
            self.sweep_once(Instant::now());
        }
    }

    fn sweep_once(&self, now: Instant) {
        let since = milliseconds(now.saturating_duration_since(self.0.epoch));
        for wait in self.0.waits.lock().entered.values() {
            wait.look(since, now);
        }
    }
}

impl Wait {
    /// Shuts the connection down if it is overdue; `since` is `now` by the list's clock. A wait that moved
    /// since the last look begins anew now: requests only say that they moved, and need no clock for it.
    fn look(&self, since: u64, now: Instant) {
        let taken = self.client.as_ref().map_or(0, |client| client.taken());
        let moved = self.taken.swap(taken, Ordering::Relaxed) != taken;
        let due = self.due.load(Ordering::Relaxed);
        if moved || due == u64::MAX {
            self.due.store(since.saturating_add(self.limit.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
        let expired = if self.end.load(Ordering::Relaxed) <= since {
            ENDED
        } else if self.endpoint.must_abort(|| now) {
            REMOVED
        } else if !moved && due != u64::MAX && due <= since {
            PAUSED
        } else if since < self.rescued_until.load(Ordering::Relaxed) && self.endpoint.passive_health().is_unresponsive()
        {
            UNRESPONSIVE
        } else {
            return;
        };
        if self.expired.load(Ordering::Relaxed) == WAITS {
            self.expired.store(expired, Ordering::Relaxed);
            shut_down(self.fd, self.ends);
        }
    }
}

impl Deadline {
    /// Something moved: the wait begins anew, for `limit`.
    pub(super) fn progress(&self, limit: Duration) {
        self.wait.limit.store(milliseconds(limit), Ordering::Relaxed);
        self.wait.due.store(u64::MAX, Ordering::Relaxed);
    }

    /// From now on all of it may take any time.
    pub(super) fn forget_end(&self) {
        self.wait.end.store(u64::MAX, Ordering::Relaxed);
    }

    /// Whether the wait ends as soon as the backend is known to answer nobody: where an answer is owed, and
    /// another backend could give it. Until a time, or not at all.
    pub(super) fn rescue(&self, until: Option<Instant>) {
        let until = until.map_or(0, |until| milliseconds(until.saturating_duration_since(self.list.0.epoch)));
        self.wait.rescued_until.store(until, Ordering::Relaxed);
    }

    /// Why the deadline passed, if it did.
    pub(super) fn expired(&self) -> Option<Expiry> {
        match self.wait.expired.load(Ordering::Relaxed) {
            PAUSED => Some(Expiry::Pause),
            ENDED => Some(Expiry::End),
            REMOVED => Some(Expiry::Removal),
            UNRESPONSIVE => Some(Expiry::Unresponsive),
            _ => None,
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.list.0.waits.lock().entered.remove(&self.number);
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1)
}

/// Shuts down the connection between `ends`, if that is what `fd` is. An error on the way means
/// that it is closed already.
fn shut_down(fd: RawFd, ends: Ends) {
    let Some(connection) = duplicate(fd).map(TcpStream::from) else { return };
    let is = connection.local_addr().ok().zip(connection.peer_addr().ok());
    if is == Some((ends.local, ends.backend)) {
        connection.shutdown(Shutdown::Both).ok();
    }
}

/// A second descriptor of what `fd` is at this moment, if it is anything.
#[expect(unsafe_code, reason = "Pingora shows the descriptor as a bare number")]
fn duplicate(fd: RawFd) -> Option<OwnedFd> {
    if fd < 0 {
        return None;
    }
    // SAFETY: the borrow lasts for one `fcntl`, which fails with EBADF where the number is no
    // descriptor any more; the number is never closed through it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use crate::pool::{BackendSettings, PoolShared};

    const SECOND: Duration = Duration::from_secs(1);

    fn pause(pause: Duration) -> Limits {
        Limits { pause, end: None }
    }

    fn connection() -> (TcpStream, TcpStream, Arc<Endpoint>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let theirs = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        let endpoint =
            Endpoint::new(ours.peer_addr().unwrap(), BackendSettings::default(), PoolShared::default(), Instant::now());
        (ours, theirs, Arc::new(endpoint))
    }

    fn to(stream: &TcpStream, endpoint: &Arc<Endpoint>) -> ToBackend {
        let (fd, local) = (stream.as_raw_fd(), stream.local_addr().unwrap());
        ToBackend { fd, local, endpoint: Arc::clone(endpoint) }
    }

    fn client() -> Arc<Connection> {
        Arc::new(Connection::new("192.0.2.1:9".parse().unwrap(), None, false, Arc::default()))
    }

    fn is_shut_down(mut stream: &TcpStream) -> bool {
        match stream.read(&mut [0]) {
            Ok(0) => true,
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_is_overdue_is_shut_down() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (late, _late_end, late_backend) = connection();
        let (early, _early_end, early_backend) = connection();
        let overdue = deadlines.start(to(&late, &late_backend), Some(client()), pause(SECOND));
        let waiting = deadlines.start(to(&early, &early_backend), None, pause(SECOND * 9));
        deadlines.sweep_once(now);
        assert!(overdue.expired().is_none(), "it counts from the first look");
        deadlines.sweep_once(now + SECOND);
        assert!(overdue.expired() == Some(Expiry::Pause) && is_shut_down(&late));
        assert!(waiting.expired().is_none() && !is_shut_down(&early));
        drop(waiting);
        deadlines.sweep_once(now + SECOND * 20);
        assert!(!is_shut_down(&early), "called off");
        drop(overdue);
        assert!(deadlines.0.waits.lock().entered.is_empty());
    }

    #[test]
    fn movement_on_either_side_begins_the_wait_anew() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (stream, _end, backend) = connection();
        let client = client();
        let deadline = deadlines.start(to(&stream, &backend), Some(Arc::clone(&client)), pause(SECOND));
        for second in 0..10 {
            deadlines.sweep_once(now + SECOND * second);
            if second % 2 == 0 { deadline.progress(SECOND) } else { client.take(100) }
        }
        deadlines.sweep_once(now + SECOND * 10);
        assert!(deadline.expired().is_none());
        deadlines.sweep_once(now + SECOND * 11);
        assert!(deadline.expired().is_some());
    }

    #[test]
    fn the_end_comes_whatever_moves() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (stream, _end, backend) = connection();
        let limits = Limits { pause: Duration::MAX, end: Some(now + SECOND * 5) };
        let deadline = deadlines.start(to(&stream, &backend), None, limits);
        for second in 0..5 {
            deadlines.sweep_once(now + SECOND * second);
            deadline.progress(SECOND);
        }
        assert!(deadline.expired().is_none() && !is_shut_down(&stream));
        deadlines.sweep_once(now + SECOND * 5);
        assert!(deadline.expired() == Some(Expiry::End) && is_shut_down(&stream));
    }

    #[test]
    fn what_goes_on_at_a_removed_backend_is_cut_in_time_however_patient() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (stream, _end, backend) = connection();
        let limits = Limits { pause: SECOND, end: Some(now + SECOND * 5) };
        let deadline = deadlines.start(to(&stream, &backend), None, limits);
        deadline.forget_end();
        deadline.progress(Duration::MAX);
        deadlines.sweep_once(now + SECOND * 99);
        deadlines.sweep_once(now + SECOND * 999);
        assert!(deadline.expired().is_none());
        backend.remove(&"p".into(), SECOND * 300, now + SECOND * 1000);
        deadlines.sweep_once(now + SECOND * 1299);
        assert!(deadline.expired().is_none() && !is_shut_down(&stream));
        deadlines.sweep_once(now + SECOND * 1301);
        assert!(deadline.expired() == Some(Expiry::Removal) && is_shut_down(&stream));
    }

    #[test]
    fn nobody_waits_for_the_silent_who_could_be_answered_by_another() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (stream, _end, backend) = connection();
        let limits = Limits { pause: SECOND * 9, end: None };
        let deadline = deadlines.start(to(&stream, &backend), None, limits);
        deadlines.sweep_once(now);
        deadline.rescue(Some(now + SECOND * 2));
        deadlines.sweep_once(now + SECOND);
        assert!(deadline.expired().is_none(), "it may be only slow");
        backend.passive_health().eject(true, Instant::now());
        deadline.rescue(None);
        deadlines.sweep_once(now + SECOND);
        assert!(deadline.expired().is_none(), "the answer has begun, or nobody else could give it");
        deadline.rescue(Some(now + SECOND * 2));
        deadlines.sweep_once(now + SECOND * 2);
        assert!(deadline.expired().is_none() && !is_shut_down(&stream), "it is too late for another try");
        deadline.rescue(Some(now + SECOND * 3));
        deadlines.sweep_once(now + SECOND * 2);
        assert!(deadline.expired() == Some(Expiry::Unresponsive) && is_shut_down(&stream));
    }

    #[test]
    fn a_descriptor_that_became_another_connection_is_left_alone() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (one, _one_end, gone) = connection();
        let (innocent, _end, _) = connection();
        let entered = ToBackend { fd: innocent.as_raw_fd(), ..to(&one, &gone) };
        let _deadline = deadlines.start(entered, None, pause(SECOND));
        deadlines.sweep_once(now);
        deadlines.sweep_once(now + SECOND);
        assert!(!is_shut_down(&innocent));
    }
}
