//! The deadline for the first byte of a backend's answer, and before it, on HTTP/2, for the rest of the
//! request's body: what a client owes is not the backend's delay. On HTTP/1 the listener's stream keeps
//! the time of bodies.
//!
//! Pingora has one read timeout for header and body. Ours differ, because an answer that has begun
//! may pause for longer than one may take to begin. Pingora's own is set to the longer of the two;
//! the shorter one is kept here: a connection whose answer is overdue is shut down, whereupon the
//! read that waits for the answer fails.
//!
//! A timer for each request would cost more than all else that l7lb does for it (four system calls,
//! measured), so requests are entered into one list, and a sweep ten times a second looks for those
//! that are overdue. By the time of the sweep the descriptor's number could belong to another
//! connection; so the sweep duplicates the descriptor first, and shuts it down only if both ends of
//! the duplicate are those that were entered.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How late a sweep may find an overdue answer.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Both ends of a connection to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) backend: SocketAddr,
}

struct Entry {
    fd: RawFd,
    ends: Ends,
    /// `None` while nothing is owed.
    due: Option<Instant>,
    expired: bool,
}

#[derive(Default)]
struct List {
    next: u64,
    entries: HashMap<u64, Entry, ahash::RandomState>,
}

/// The answers that are waited for.
#[derive(Clone, Default)]
pub(super) struct Deadlines(Arc<Mutex<List>>);

/// A running deadline; dropping it calls it off.
pub(super) struct FirstByte {
    list: Deadlines,
    number: u64,
}

impl Deadlines {
    /// Enters the connection behind `fd`, to be shut down when it is `due`.
    pub(super) fn watch(&self, fd: RawFd, ends: Ends, due: Option<Instant>) -> FirstByte {
        let mut list = self.0.lock();
        let number = list.next;
        list.next = number.wrapping_add(1);
        list.entries.insert(number, Entry { fd, ends, due, expired: false });
        drop(list);
        FirstByte { list: self.clone(), number }
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
        let mut list = self.0.lock();
        for entry in list.entries.values_mut().filter(|entry| !entry.expired && entry.due.is_some_and(|due| due <= now))
        {
            entry.expired = true;
            shut_down(entry.fd, entry.ends);
        }
    }
}

impl FirstByte {
    /// Sets another deadline.
    pub(super) fn set(&self, due: Option<Instant>) {
        if let Some(entry) = self.list.0.lock().entries.get_mut(&self.number) {
            entry.due = due;
        }
    }

    /// Whether the deadline passed.
    pub(super) fn expired(&self) -> bool {
        self.list.0.lock().entries.get(&self.number).is_some_and(|entry| entry.expired)
    }
}

impl Drop for FirstByte {
    fn drop(&mut self) {
        self.list.0.lock().entries.remove(&self.number);
    }
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

    fn connection() -> (TcpStream, TcpStream, Ends) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let theirs = listener.accept().unwrap().0;
        let ends = Ends { local: ours.local_addr().unwrap(), backend: ours.peer_addr().unwrap() };
        ours.set_nonblocking(true).unwrap();
        (ours, theirs, ends)
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
        let deadlines = Deadlines::default();
        let now = Instant::now();
        let (late, _late_end, late_ends) = connection();
        let (early, _early_end, early_ends) = connection();
        let second = Duration::from_secs(1);
        let overdue = deadlines.watch(late.as_raw_fd(), late_ends, Some(now));
        let waiting = deadlines.watch(early.as_raw_fd(), early_ends, Some(now + second));
        deadlines.sweep_once(now);
        assert!(overdue.expired() && is_shut_down(&late));
        assert!(!waiting.expired() && !is_shut_down(&early));
        waiting.set(None);
        deadlines.sweep_once(now + second);
        assert!(!is_shut_down(&early), "nothing is owed");
        waiting.set(Some(now + second));
        drop(waiting);
        deadlines.sweep_once(now + second);
        assert!(!is_shut_down(&early), "called off");
        drop(overdue);
        assert!(deadlines.0.lock().entries.is_empty());
    }

    #[test]
    fn a_descriptor_that_became_another_connection_is_left_alone() {
        let deadlines = Deadlines::default();
        let now = Instant::now();
        let (_one, _one_end, gone) = connection();
        let (innocent, _end, _) = connection();
        let _watch = deadlines.watch(innocent.as_raw_fd(), gone, Some(now));
        deadlines.sweep_once(now);
        assert!(!is_shut_down(&innocent));
    }
}
