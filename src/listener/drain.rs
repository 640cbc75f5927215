//! Open connections, and how they end when the process is asked to.
//!
//! Nothing is cut while it can still end by itself. When draining begins, HTTP/2 connections are
//! told to go away and HTTP/1.1 answers say `Connection: close`, so that clients leave between
//! requests. An HTTP/1.1 connection that is silent is left open for a while: closing it at once
//! would meet a request that is already on its way, and that request would be lost.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// How long silent connections are left open after draining began.
const SILENCE: Duration = Duration::from_millis(500);
/// How long requests may take to notice that they were cut.
const CUT: Duration = Duration::from_secs(1);

/// The open connections of the process and the wish to end them. Cheap to clone.
#[derive(Clone)]
pub struct Drain {
    begun: Arc<watch::Sender<bool>>,
    silent: Arc<watch::Sender<bool>>,
    connections: Arc<watch::Sender<Connections>>,
    doors: Arc<watch::Sender<usize>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            begun: Arc::new(watch::Sender::new(false)),
            silent: Arc::new(watch::Sender::new(false)),
            connections: Arc::new(watch::Sender::new(Connections::default())),
            doors: Arc::new(watch::Sender::new(0)),
        }
    }
}

/// The connections that are open, with their descriptors.
#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, RawFd, ahash::RandomState>,
}

/// One open connection; dropping it ends the count.
pub struct Open {
    connections: Arc<watch::Sender<Connections>>,
    number: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.send_modify(|connections| {
            connections.open.remove(&self.number);
        });
    }
}

/// One door at which connections come in; dropping it ends the count.
pub struct OpenDoor(Arc<watch::Sender<usize>>);

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl Drain {
    /// Counts the connection behind `fd`.
    #[must_use]
    pub fn connection(&self, fd: RawFd) -> Open {
        let mut number = 0;
        self.connections.send_modify(|connections| {
            number = connections.next;
            connections.next = number.wrapping_add(1);
            connections.open.insert(number, fd);
        });
        Open { connections: Arc::clone(&self.connections), number }
    }

    /// Counts a door at which connections still come in: there may be more of them than are open.
    #[must_use]
    pub fn door(&self) -> OpenDoor {
        self.doors.send_modify(|open| *open += 1);
        OpenDoor(Arc::clone(&self.doors))
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.connections.borrow().open.len()
    }

    /// Becomes true when draining begins.
    #[must_use]
    pub fn begun(&self) -> watch::Receiver<bool> {
        self.begun.subscribe()
    }

    /// Becomes true when silent connections are to be closed too.
    #[must_use]
    pub fn silent(&self) -> watch::Receiver<bool> {
        self.silent.subscribe()
    }

    /// Ends all connections, gently first, and returns how many were still open after `grace`.
    pub async fn run(&self, grace: Duration) -> usize {
        let begun = Instant::now();
        self.begun.send_replace(true);
        let (mut doors, mut connections) = (self.doors.subscribe(), self.connections.subscribe());
        let mut all_closed = async |until: Instant| {
            let closed = async {
                // The doors first: behind an open one, no connections may be none yet.
                doors.wait_for(|open| *open == 0).await.ok();
                connections.wait_for(|connections| connections.open.is_empty()).await.ok();
            };
            timeout_at(until, closed).await.is_ok()
        };
        if all_closed(begun + SILENCE.min(grace)).await {
            return 0;
        }
        self.silent.send_replace(true);
        if all_closed(begun + grace).await { 0 } else { self.open() }
    }

    /// Shuts all connections down, so that each request comes to an end that is logged, and returns how many
    /// had none even so. To be called last of all: a connection that has just ended may have left its
    /// descriptor to something else.
    pub async fn cut(&self) -> usize {
        let mut connections = self.connections.subscribe();
        let open: Vec<RawFd> = connections.borrow().open.values().copied().collect();
        for fd in open {
            // An error means that it is closed already.
            shutdown(fd, Shutdown::Both).ok();
        }
        timeout(CUT, connections.wait_for(|connections| connections.open.is_empty())).await.ok();
        self.open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_last_connection_or_at_the_deadline() {
        let drain = Drain::default();
        assert_eq!(drain.run(Duration::from_secs(30)).await, 0, "nothing to wait for");

        let drain = Drain::default();
        let connection = drain.connection(-1);
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run(Duration::from_secs(30)).await }
        });
        drain.silent().wait_for(|silent| *silent).await.unwrap();
        drop(connection);
        assert_eq!(waiting.await.unwrap(), 0);

        let drain = Drain::default();
        let door = drain.door();
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run(Duration::from_secs(30)).await }
        });
        drain.begun().wait_for(|begun| *begun).await.unwrap();
        let late = drain.connection(-1);
        drop(door);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "somebody came in at the last moment");
        drop(late);
        assert_eq!(waiting.await.unwrap(), 0);

        let drain = Drain::default();
        let _connection = drain.connection(-1);
        assert_eq!(drain.run(Duration::from_secs(30)).await, 1);
        assert_eq!(drain.cut().await, 1, "it does not notice");
    }
}
