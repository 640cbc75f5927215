//! Open connections, and how they end when the process is asked to.
//!
//! Nothing is cut while it can still end by itself. When draining begins, HTTP/2 connections are
//! told to go away and HTTP/1.1 answers say `Connection: close`, so that clients leave between
//! requests. An HTTP/1.1 connection that is silent is left open for a while: closing it at once
//! would meet a request that is already on its way, and that request would be lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long silent connections are left open after draining began.
const SILENCE: Duration = Duration::from_millis(500);

/// The open connections of the process and the wish to end them. Cheap to clone.
#[derive(Clone)]
pub struct Drain {
    begun: Arc<watch::Sender<bool>>,
    silent: Arc<watch::Sender<bool>>,
    connections: Arc<watch::Sender<usize>>,
    doors: Arc<watch::Sender<usize>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            begun: Arc::new(watch::Sender::new(false)),
            silent: Arc::new(watch::Sender::new(false)),
            connections: Arc::new(watch::Sender::new(0)),
            doors: Arc::new(watch::Sender::new(0)),
        }
    }
}

/// One open connection, or one open door; dropping it ends the count.
pub struct Open(Arc<watch::Sender<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl Drain {
    /// Counts a connection.
    #[must_use]
    pub fn connection(&self) -> Open {
        self.connections.send_modify(|open| *open += 1);
        Open(Arc::clone(&self.connections))
    }

    /// Counts a door at which connections still come in: there may be more of them than are open.
    #[must_use]
    pub fn door(&self) -> Open {
        self.doors.send_modify(|open| *open += 1);
        Open(Arc::clone(&self.doors))
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        *self.connections.borrow()
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
                connections.wait_for(|open| *open == 0).await.ok();
            };
            timeout_at(until, closed).await.is_ok()
        };
        if all_closed(begun + SILENCE.min(grace)).await {
            return 0;
        }
        self.silent.send_replace(true);
        if all_closed(begun + grace).await { 0 } else { self.open() }
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
        let connection = drain.connection();
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
        let late = drain.connection();
        drop(door);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "somebody came in at the last moment");
        drop(late);
        assert_eq!(waiting.await.unwrap(), 0);

        let drain = Drain::default();
        let _connection = drain.connection();
        assert_eq!(drain.run(Duration::from_secs(30)).await, 1);
    }
}
