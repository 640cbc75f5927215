//! Timeouts of HTTP/1 backends: until the response starts, for each pause in it, and in total.
//!
//! Pingora has one read timeout for header and body. l7lb needs two, because a started response may pause for
//! longer than a response may take to start. Pingora's timeout is also a timer for each read, which for a short
//! response costs as much as writing its access log line. So waiting requests are entered into one list,
//! progress only updates a timestamp, and a sweep ten times per second shuts down the connections of expired
//! ones, which makes the pending read fail.
//!
//! A pause counts only while neither side moves: while a slow client reads what the backend sent, the backend
//! is not read. On HTTP/2 the client's connection is shared, so its progress means nothing; there each
//! forwarded part of the response counts, which requires a client to read 64 KiB within the idle timeout.
//!
//! The sweep also ends waits at a backend that was ejected as unresponsive, or whose health checks get no response, if
//! another backend can be used.
//!
//! At the time of the sweep the number of a descriptor may belong to another connection. So the sweep
//! duplicates the descriptor first, and shuts it down only if the duplicate is the same connection.

use std::collections::HashMap;
use std::fs::File;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::backend_address::BackendAddress;
use crate::listener::connection::Connection;
use crate::pool::Endpoint;

/// The precision of the sweep.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// What distinguishes a connection to a backend from any other connection of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    /// Both addresses.
    Inet { local: SocketAddr, backend: SocketAddr },
    /// The inode of a Unix domain socket. Its own end has no address.
    Unix(u64),
}

/// A connection to a backend: its descriptor, its identity and the backend.
pub(super) struct ToBackend {
    fd: RawFd,
    identity: Identity,
    endpoint: Arc<Endpoint>,
}

impl ToBackend {
    /// The connection with this descriptor and local address; `None` if it has no identity.
    pub(super) fn new(fd: RawFd, local: Option<SocketAddr>, endpoint: Arc<Endpoint>) -> Option<Self> {
        let identity = match endpoint.address() {
            BackendAddress::Inet(backend) => Identity::Inet { local: local?, backend },
            BackendAddress::Unix(_) => Identity::Unix(inode(duplicate(fd)?)?),
        };
        Some(Self { fd, identity, endpoint })
    }
}

/// A waiting request.
struct Wait {
    fd: RawFd,
    identity: Identity,
    /// The client's connection, whose progress counts too, if it serves only this request.
    client: Option<Arc<Connection>>,
    /// Milliseconds since the epoch of the list.
    due: AtomicU64,
    /// The timeout of a pause in milliseconds.
    limit: AtomicU64,
    /// The total deadline, in milliseconds since the epoch of the list.
    end: AtomicU64,
    /// Until when another backend could be used if this one becomes unresponsive, in milliseconds since the
    /// epoch of the list; zero for never.
    rescued_until: AtomicU64,
    /// The backend, which may be removed meanwhile.
    endpoint: Arc<Endpoint>,
    /// The bytes that the client had read at the last sweep.
    taken: AtomicU64,
    /// [`WAITS`], or the reason why the wait is over; written only by the sweep.
    expired: AtomicU8,
}

const WAITS: u8 = 0;
const PAUSED: u8 = 1;
const ENDED: u8 = 2;
const REMOVED: u8 = 3;
const UNRESPONSIVE: u8 = 4;

/// The reason why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Nothing moved for too long.
    Pause,
    /// The total deadline has expired.
    Deadline,
    /// The backend was removed, and its removal timeout has expired.
    Removal,
    /// The backend was ejected as unresponsive, or does not respond to health checks.
    Unresponsive,
}

/// The timeouts of one wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For each pause.
    pub(super) pause: Duration,
    /// The total deadline, if there is one.
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

/// The waiting requests.
#[derive(Clone)]
pub(super) struct Deadlines(Arc<List>);

/// A running deadline. Dropping it cancels it.
pub(super) struct Deadline {
    list: Deadlines,
    wait: Arc<Wait>,
    number: u64,
}

impl Deadlines {
    /// An empty list. Times are relative to `epoch`.
    pub(super) fn new(epoch: Instant) -> Self {
        Self(Arc::new(List { epoch, waits: Mutex::default() }))
    }

    /// Starts the deadline of a connection.
    pub(super) fn start(&self, to: ToBackend, client: Option<Arc<Connection>>, limits: Limits) -> Deadline {
        let end = limits.end.map_or(u64::MAX, |end| milliseconds(end.saturating_duration_since(self.0.epoch)));
        let wait = Wait {
            fd: to.fd,
            identity: to.identity,
            endpoint: to.endpoint,
            rescued_until: AtomicU64::new(0),
            taken: AtomicU64::new(client.as_ref().map_or(0, |client| client.bytes_sent())),
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

    /// Looks for expired waits until the process ends.
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
    /// Shuts the connection down if its timeout expired; `since` is `now` in the list's clock. A wait with progress
    /// since the last sweep restarts now: requests record progress without reading the clock.
    fn look(&self, since: u64, now: Instant) {
        let taken = self.client.as_ref().map_or(0, |client| client.bytes_sent());
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
        } else if since < self.rescued_until.load(Ordering::Relaxed)
            && (self.endpoint.passive_health().is_unresponsive() || self.endpoint.is_silent())
        {
            UNRESPONSIVE
        } else {
            return;
        };
        if self.expired.load(Ordering::Relaxed) == WAITS {
            self.expired.store(expired, Ordering::Relaxed);
            shut_down(self.fd, self.identity);
        }
    }
}

impl Deadline {
    /// Records progress: the wait restarts with `limit`.
    pub(super) fn progress(&self, limit: Duration) {
        self.wait.limit.store(milliseconds(limit), Ordering::Relaxed);
        self.wait.due.store(u64::MAX, Ordering::Relaxed);
    }

    /// Removes the total deadline.
    pub(super) fn remove_total_deadline(&self) {
        self.wait.end.store(u64::MAX, Ordering::Relaxed);
    }

    /// Until when the wait ends as soon as the backend is ejected as unresponsive; `None` if no other backend
    /// may be used.
    pub(super) fn set_retryable_until(&self, until: Option<Instant>) {
        let until = until.map_or(0, |until| milliseconds(until.saturating_duration_since(self.list.0.epoch)));
        self.wait.rescued_until.store(until, Ordering::Relaxed);
    }

    /// The reason why the wait is over, if it is.
    pub(super) fn expired(&self) -> Option<Expiry> {
        match self.wait.expired.load(Ordering::Relaxed) {
            PAUSED => Some(Expiry::Pause),
            ENDED => Some(Expiry::Deadline),
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

/// Shuts down `fd` if it is the connection with this identity. An error means that it is closed already.
fn shut_down(fd: RawFd, identity: Identity) {
    let Some(connection) = duplicate(fd).map(TcpStream::from) else { return };
    let is = match identity {
        Identity::Inet { local, backend } => {
            connection.local_addr().ok() == Some(local) && connection.peer_addr().ok() == Some(backend)
        }
        Identity::Unix(number) => connection.try_clone().ok().and_then(|copy| inode(copy.into())) == Some(number),
    };
    if is {
        connection.shutdown(Shutdown::Both).ok();
    }
}

/// The inode of a socket. The kernel numbers sockets in turn, so that a new socket does not have the number of one
/// that was closed recently.
fn inode(socket: OwnedFd) -> Option<u64> {
    File::from(socket).metadata().ok().map(|metadata| metadata.ino())
}

/// A duplicate of `fd`, if it is open.
#[expect(unsafe_code, reason = "Pingora passes the descriptor as a number")]
fn duplicate(fd: RawFd) -> Option<OwnedFd> {
    if fd < 0 {
        return None;
    }
    // SAFETY: the borrow lasts for one `fcntl`, which fails with EBADF if the descriptor is closed; the number
    // is never closed through it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use crate::pool::{BackendSettings, Health, PoolShared};

    const SECOND: Duration = Duration::from_secs(1);

    fn pause(pause: Duration) -> Limits {
        Limits { pause, end: None }
    }

    fn connection() -> (TcpStream, TcpStream, Arc<Endpoint>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let theirs = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        let endpoint = Endpoint::new(
            ours.peer_addr().unwrap().into(),
            BackendSettings::default(),
            PoolShared::default(),
            Instant::now(),
        );
        (ours, theirs, Arc::new(endpoint))
    }

    fn to(stream: &TcpStream, endpoint: &Arc<Endpoint>) -> ToBackend {
        ToBackend::new(stream.as_raw_fd(), stream.local_addr().ok(), Arc::clone(endpoint)).unwrap()
    }

    fn client() -> Arc<Connection> {
        Arc::new(Connection::new(("192.0.2.1:9".parse().unwrap(), None), Instant::now(), None, Arc::default()))
    }

    fn is_shut_down(mut stream: &TcpStream) -> bool {
        match stream.read(&mut [0]) {
            Ok(0) => true,
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_overdue_connections_are_shut_down() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (late, _late_end, late_backend) = connection();
        let (early, _early_end, early_backend) = connection();
        let late_deadline = deadlines.start(to(&late, &late_backend), Some(client()), pause(SECOND));
        let waiting = deadlines.start(to(&early, &early_backend), None, pause(SECOND * 9));
        deadlines.sweep_once(now);
        assert!(late_deadline.expired().is_none(), "it counts from the first sweep");
        deadlines.sweep_once(now + SECOND);
        assert!(late_deadline.expired() == Some(Expiry::Pause) && is_shut_down(&late));
        assert!(waiting.expired().is_none() && !is_shut_down(&early));
        drop(waiting);
        deadlines.sweep_once(now + SECOND * 20);
        assert!(!is_shut_down(&early), "cancelled");
        drop(late_deadline);
        assert!(deadlines.0.waits.lock().entered.is_empty());
    }

    #[test]
    fn progress_on_either_side_restarts_the_wait() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (stream, _end, backend) = connection();
        let client = client();
        let deadline = deadlines.start(to(&stream, &backend), Some(Arc::clone(&client)), pause(SECOND));
        for second in 0..10 {
            deadlines.sweep_once(now + SECOND * second);
            if second % 2 == 0 { deadline.progress(SECOND) } else { client.add_bytes_sent(100) }
        }
        deadlines.sweep_once(now + SECOND * 10);
        assert!(deadline.expired().is_none());
        deadlines.sweep_once(now + SECOND * 11);
        assert!(deadline.expired().is_some());
    }

    #[test]
    fn total_deadline_expires_despite_progress() {
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
        assert!(deadline.expired() == Some(Expiry::Deadline) && is_shut_down(&stream));
    }

    #[test]
    fn request_on_a_removed_backend_is_aborted_after_the_removal_timeout() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (stream, _end, backend) = connection();
        let limits = Limits { pause: SECOND, end: Some(now + SECOND * 5) };
        let deadline = deadlines.start(to(&stream, &backend), None, limits);
        deadline.remove_total_deadline();
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
    fn wait_for_an_unresponsive_backend_ends_if_another_can_be_used() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (stream, _end, backend) = connection();
        let limits = Limits { pause: SECOND * 9, end: None };
        let deadline = deadlines.start(to(&stream, &backend), None, limits);
        deadlines.sweep_once(now);
        deadline.set_retryable_until(Some(now + SECOND * 2));
        deadlines.sweep_once(now + SECOND);
        assert!(deadline.expired().is_none(), "the backend may only be slow");
        backend.passive_health().eject(true, Instant::now());
        deadline.set_retryable_until(None);
        deadlines.sweep_once(now + SECOND);
        assert!(deadline.expired().is_none(), "the response has started, or no other backend may be used");
        deadline.set_retryable_until(Some(now + SECOND * 2));
        deadlines.sweep_once(now + SECOND * 2);
        assert!(deadline.expired().is_none() && !is_shut_down(&stream), "it is too late for another attempt");
        deadline.set_retryable_until(Some(now + SECOND * 3));
        deadlines.sweep_once(now + SECOND * 2);
        assert!(deadline.expired() == Some(Expiry::Unresponsive) && is_shut_down(&stream));
    }

    #[test]
    fn wait_for_a_backend_ends_when_health_checks_get_no_response() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let (stream, _end, backend) = connection();
        let deadline = deadlines.start(to(&stream, &backend), None, pause(SECOND * 9));
        deadline.set_retryable_until(Some(now + SECOND * 3));
        backend.set_health(Health::Down, now);
        deadlines.sweep_once(now);
        assert!(deadline.expired().is_none(), "it reports itself as unhealthy and completes its requests");
        backend.set_silent(true);
        backend.set_health(Health::Up, now);
        deadlines.sweep_once(now);
        assert!(deadline.expired().is_none(), "one check has failed");
        backend.set_health(Health::Down, now);
        deadlines.sweep_once(now + SECOND);
        assert!(deadline.expired() == Some(Expiry::Unresponsive) && is_shut_down(&stream));
    }

    #[test]
    fn reused_descriptor_is_not_shut_down() {
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

    #[test]
    fn unix_connection_is_identified_by_its_inode() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        let address = "unix:/run/app.sock".parse().unwrap();
        let backend =
            Arc::new(Endpoint::new(address, BackendSettings::default(), PoolShared::default(), Instant::now()));
        let pairs = [(); 2].map(|()| UnixStream::pair().unwrap());
        let [overdue, innocent] = pairs.each_ref().map(|(ours, _)| {
            ours.set_nonblocking(true).unwrap();
            ToBackend::new(ours.as_raw_fd(), None, Arc::clone(&backend)).unwrap()
        });
        let reused = ToBackend { fd: innocent.fd, ..ToBackend::new(overdue.fd, None, backend).unwrap() };
        let waits = [deadlines.start(overdue, None, pause(SECOND)), deadlines.start(reused, None, pause(SECOND))];
        deadlines.sweep_once(now);
        deadlines.sweep_once(now + SECOND);
        assert!(waits.iter().all(|wait| wait.expired() == Some(Expiry::Pause)));
        let is_shut_down = |mut stream: &UnixStream| stream.read(&mut [0]).ok() == Some(0);
        assert!(is_shut_down(&pairs[0].0));
        assert!(!is_shut_down(&pairs[1].0), "the descriptor belongs to another connection");
    }
}
