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

use crate::connection::Connection;

/// How late a sweep may find an overdue answer.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Both ends of a connection to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) backend: SocketAddr,
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
    end: u64,
    /// What the client had taken when the sweep looked last.
    taken: AtomicU64,
    /// [`WAITS`], or why it does no more; only the sweep writes here.
    expired: AtomicU8,
}

const WAITS: u8 = 0;
const PAUSED: u8 = 1;
const ENDED: u8 = 2;

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Nothing moved for too long.
    Pause,
    /// All took too long.
    End,
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

    /// Starts a deadline for the connection behind `fd`.
    pub(super) fn start(&self, fd: RawFd, ends: Ends, client: Option<Arc<Connection>>, limits: Limits) -> Deadline {
        let wait = Wait {
            fd,
            ends,
            taken: AtomicU64::new(client.as_ref().map_or(0, |client| client.taken())),
            client,
            due: AtomicU64::new(u64::MAX),
            limit: AtomicU64::new(milliseconds(limits.pause)),
            end: limits.end.map_or(u64::MAX, |end| milliseconds(end.saturating_duration_since(self.0.epoch))),
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
        let now = milliseconds(now.saturating_duration_since(self.0.epoch));
        for wait in self.0.waits.lock().entered.values() {
            wait.look(now);
        }
    }
}

impl Wait {
    /// Shuts the connection down if it is overdue. A wait that moved since the last look begins anew
    /// now: requests only say that they moved, and need no clock for it.
    fn look(&self, now: u64) {
        let taken = self.client.as_ref().map_or(0, |client| client.taken());
        let moved = self.taken.swap(taken, Ordering::Relaxed) != taken;
        let due = self.due.load(Ordering::Relaxed);
        if moved || due == u64::MAX {
            self.due.store(now.saturating_add(self.limit.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
        let paused = !moved && due != u64::MAX && due <= now;
        if (paused || self.end <= now) && self.expired.load(Ordering::Relaxed) == WAITS {
            self.expired.store(if self.end <= now { ENDED } else { PAUSED }, Ordering::Relaxed);
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

    /// Why the deadline passed, if it did.
    pub(super) fn expired(&self) -> Option<Expiry> {
        match self.wait.expired.load(Ordering::Relaxed) {
            PAUSED => Some(Expiry::Pause),
            ENDED => Some(Expiry::End),
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

    const SECOND: Duration = Duration::from_secs(1);

    fn pause(pause: Duration) -> Limits {
        Limits { pause, end: None }
    }

    fn connection() -> (TcpStream, TcpStream, Ends) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let theirs = listener.accept().unwrap().0;
        let ends = Ends { local: ours.local_addr().unwrap(), backend: ours.peer_addr().unwrap() };
        ours.set_nonblocking(true).unwrap();
        (ours, theirs, ends)
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
        let (late, _late_end, late_ends) = connection();
        let (early, _early_end, early_ends) = connection();
        let overdue = deadlines.start(late.as_raw_fd(), late_ends, Some(client()), pause(SECOND));
        let waiting = deadlines.start(early.as_raw_fd(), early_ends, None, pause(SECOND * 9));
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
        let (stream, _end, ends) = connection();
        let client = client();
        let deadline = deadlines.start(stream.as_raw_fd(), ends, Some(Arc::clone(&client)), pause(SECOND));
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
        let (stream, _end, ends) = connection();
        let limits = Limits { pause: Duration::MAX, end: Some(now + SECOND * 5) };
        let deadline = deadlines.start(stream.as_raw_fd(), ends, None, limits);
        for second in 0..5 {
            deadlines.sweep_once(now + SECOND * second);
            deadline.progress(SECOND);
        }
        assert!(deadline.expired().is_none() && !is_shut_down(&stream));
        deadlines.sweep_once(now + SECOND * 5);
        assert!(deadline.expired() == Some(Expiry::End) && is_shut_down(&stream));
    }

    #[test]
    fn a_descriptor_that_became_another_connection_is_left_alone() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (_one, _one_end, gone) = connection();
        let (innocent, _end, _) = connection();
        let _deadline = deadlines.start(innocent.as_raw_fd(), gone, None, pause(SECOND));
        deadlines.sweep_once(now);
        deadlines.sweep_once(now + SECOND);
        assert!(!is_shut_down(&innocent));
    }
}
