//! Open connections, and how they end during a graceful shutdown.
//!
//! A connection is not closed while it can still end by itself. When draining starts, HTTP/2 connections get
//! GOAWAY and HTTP/1.1 responses have `Connection: close`, so that clients disconnect between requests. Idle
//! HTTP/1.1 connections stay open for a moment: closing them immediately could hit a request that is already on
//! its way, which would be lost.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// How long idle connections stay open after draining has started.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// How long requests may take to end after their connections were shut down.
const ABORT_WAIT: Duration = Duration::from_secs(1);

/// The open connections of the process, and the state of draining. Cheap to clone.
#[derive(Clone)]
pub struct Drain {
    started: Arc<watch::Sender<bool>>,
    closing_idle: Arc<watch::Sender<bool>>,
    connections: Arc<watch::Sender<Connections>>,
    accept_loops: Arc<watch::Sender<usize>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            started: Arc::new(watch::Sender::new(false)),
            closing_idle: Arc::new(watch::Sender::new(false)),
            connections: Arc::new(watch::Sender::new(Connections::default())),
            accept_loops: Arc::new(watch::Sender::new(0)),
        }
    }
}

/// The open connections with their descriptors.
#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, RawFd, ahash::RandomState>,
}

/// One open connection. When it is dropped, the connection is no longer counted.
pub struct OpenConnection {
    connections: Arc<watch::Sender<Connections>>,
    number: u64,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.send_modify(|connections| {
            connections.open.remove(&self.number);
        });
    }
}

/// One active accept loop. When it is dropped, the loop is no longer counted.
pub struct ActiveAcceptLoop(Arc<watch::Sender<usize>>);

impl Drop for ActiveAcceptLoop {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl Drain {
    /// Counts the connection with the descriptor `fd`.
    #[must_use]
    pub fn connection(&self, fd: RawFd) -> OpenConnection {
        let mut number = 0;
        self.connections.send_modify(|connections| {
            number = connections.next;
            connections.next = number.wrapping_add(1);
            connections.open.insert(number, fd);
        });
        OpenConnection { connections: Arc::clone(&self.connections), number }
    }

    /// Counts an active accept loop, which may still add connections.
    #[must_use]
    pub fn accept_loop(&self) -> ActiveAcceptLoop {
        self.accept_loops.send_modify(|open| *open += 1);
        ActiveAcceptLoop(Arc::clone(&self.accept_loops))
    }

    /// The number of open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.connections.borrow().open.len()
    }

    /// Becomes true when draining starts.
    #[must_use]
    pub fn started(&self) -> watch::Receiver<bool> {
        self.started.subscribe()
    }

    /// Becomes true when idle connections must close too.
    #[must_use]
    pub fn closing_idle(&self) -> watch::Receiver<bool> {
        self.closing_idle.subscribe()
    }

    /// Drains all connections, and returns how many were still open after `grace`.
    pub async fn run(&self, grace: Duration) -> usize {
        let start = Instant::now();
        self.started.send_replace(true);
        let (mut accept_loops, mut connections) = (self.accept_loops.subscribe(), self.connections.subscribe());
        let mut all_closed = async |until: Instant| {
            let closed = async {
                // Accept loops first: an active one may still add connections.
                accept_loops.wait_for(|open| *open == 0).await.ok();
                connections.wait_for(|connections| connections.open.is_empty()).await.ok();
            };
            timeout_at(until, closed).await.is_ok()
        };
        if all_closed(start + IDLE_GRACE.min(grace)).await {
            return 0;
        }
        self.closing_idle.send_replace(true);
        if all_closed(start + grace).await { 0 } else { self.open() }
    }

    /// Shuts all connections down, so that each request ends and is logged. Returns how many did not end. Must
    /// be the last step: the descriptor of a connection that has just ended may be reused.
    pub async fn abort(&self) -> usize {
        let mut connections = self.connections.subscribe();
        let open: Vec<RawFd> = connections.borrow().open.values().copied().collect();
        for fd in open {
            // An error means that it is closed already.
            shutdown(fd, Shutdown::Both).ok();
        }
        timeout(ABORT_WAIT, connections.wait_for(|connections| connections.open.is_empty())).await.ok();
        self.open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drain_ends_with_the_last_connection_or_at_the_deadline() {
        let drain = Drain::default();
        assert_eq!(drain.run(Duration::from_secs(30)).await, 0, "no connection is open");

        let drain = Drain::default();
        let connection = drain.connection(-1);
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run(Duration::from_secs(30)).await }
        });
        drain.closing_idle().wait_for(|closing| *closing).await.unwrap();
        drop(connection);
        assert_eq!(waiting.await.unwrap(), 0);

        let drain = Drain::default();
        let accept_loop = drain.accept_loop();
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run(Duration::from_secs(30)).await }
        });
        drain.started().wait_for(|started| *started).await.unwrap();
        let late = drain.connection(-1);
        drop(accept_loop);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "a connection was accepted at the last moment");
        drop(late);
        assert_eq!(waiting.await.unwrap(), 0);

        let drain = Drain::default();
        let _connection = drain.connection(-1);
        assert_eq!(drain.run(Duration::from_secs(30)).await, 1);
        assert_eq!(drain.abort().await, 1, "the connection does not end");
    }
}
