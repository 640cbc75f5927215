//! Counts open connections and enforces their limits: in total, and per client.
//!
//! Without limits a client that opens connections fast takes all file descriptors, and neither other clients
//! nor backends can be connected. At the total limit the accept loop waits
//! ([`ConnectionCounts::wait_for_slot`]): further clients wait in the kernel's accept queue until a connection
//! closes. At the limit per client its next connection is closed immediately, so that one client cannot make
//! the others wait.
//!
//! A client is an IPv4 address or an IPv6 /64, as for rate limits ([`ClientKey`]). The table has at most as
//! many clients as connections: an entry is removed with its last connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::http::client_address::ClientKey;

/// The table has 2^6 parts with one lock each, so that accept loops rarely contend.
const PART_BITS: u32 = 6;

/// The connections per client in one part of the table.
type Part = Mutex<HashMap<ClientKey, usize, RandomState>>;

/// The limits and the open connections. Cheap to clone; all clones share the counts.
#[derive(Clone)]
pub struct ConnectionCounts(Arc<Table>);

struct Table {
    total: AtomicUsize,
    per_client: AtomicUsize,
    open: AtomicUsize,
    /// Notified when a slot becomes free at the total limit.
    freed: Notify,
    parts: Box<[Part]>,
    /// Randomly seeded, so that clients cannot choose addresses that share a part.
    seed: RandomState,
}

/// Why a connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitReached {
    /// The total limit is reached.
    Total,
    /// The limit per client is reached.
    PerClient,
}

impl LimitReached {
    /// The reason as one word, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::PerClient => "per_client",
        }
    }
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Total => "too many connections",
            Self::PerClient => "too many connections from this client",
        })
    }
}

impl std::error::Error for LimitReached {}

/// The slot of one open connection. Dropping it frees the slot.
pub struct Slot {
    table: Arc<Table>,
    client: Option<ClientKey>,
}

impl ConnectionCounts {
    /// Limits of `total` and `per_client` connections; `usize::MAX` is unlimited.
    #[must_use]
    pub fn new(total: usize, per_client: usize) -> Self {
        let parts = (0..1_u32 << PART_BITS).map(|_| Part::default()).collect();
        let seed = RandomState::new();
        let (total, per_client) = (AtomicUsize::new(total), AtomicUsize::new(per_client));
        Self(Arc::new(Table { total, per_client, open: AtomicUsize::new(0), freed: Notify::new(), parts, seed }))
    }

    /// Sets new limits. Open connections beyond them stay open.
    pub fn set_limits(&self, total: usize, per_client: usize) {
        self.0.per_client.store(per_client, Ordering::SeqCst);
        self.0.total.store(total, Ordering::SeqCst);
        // There may be free slots now.
        self.0.freed.notify_waiters();
    }

    /// The number of open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::SeqCst)
    }

    /// Counts a connection of `client`; `None` for a peer without a limit, such as a trusted proxy.
    ///
    /// # Errors
    /// If a limit is reached; then nothing is counted.
    pub fn admit(&self, client: Option<ClientKey>) -> Result<Slot, LimitReached> {
        match client {
            Some(client) => self.admit_client(client),
            None => {
                self.0.take_slot()?;
                Ok(Slot { table: Arc::clone(&self.0), client })
            }
        }
    }

    fn admit_client(&self, client: ClientKey) -> Result<Slot, LimitReached> {
        let table = &self.0;
        // The part always exists; the option avoids a possible panic.
        let mut part = table.part(client).ok_or(LimitReached::Total)?.lock();
        let entry = part.entry(client);
        let open = if let Entry::Occupied(held) = &entry { *held.get() } else { 0 };
        if open >= table.per_client.load(Ordering::SeqCst) {
            return Err(LimitReached::PerClient);
        }
        table.take_slot()?;
        *entry.or_insert(0) += 1;
        Ok(Slot { table: Arc::clone(table), client: Some(client) })
    }

    /// Waits until a slot is free. It is not reserved: with several accept loops the slower one may still be
    /// rejected. Cancel-safe.
    pub async fn wait_for_slot(&self) {
        let table = &self.0;
        while table.is_full() {
            let freed = table.freed.notified();
            tokio::pin!(freed);
            // From here on no notification is missed, so the second check must come after.
            freed.as_mut().enable();
            if table.is_full() {
                freed.await;
            }
        }
    }
}

impl Table {
    fn take_slot(&self) -> Result<(), LimitReached> {
        let total = self.total.load(Ordering::SeqCst);
        let next = |open: usize| (open < total).then_some(open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).map_err(|_| LimitReached::Total)?;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.open.load(Ordering::SeqCst) >= self.total.load(Ordering::SeqCst)
    }

    fn part(&self, client: ClientKey) -> Option<&Part> {
        let upper = self.seed.hash_one(client) >> (u64::BITS - PART_BITS);
        self.parts.get(usize::try_from(upper).ok()?)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let table = &self.table;
        if let Some(client) = self.client
            && let Some(part) = table.part(client)
            && let Entry::Occupied(mut held) = part.lock().entry(client)
        {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
        if table.open.fetch_sub(1, Ordering::SeqCst) >= table.total.load(Ordering::SeqCst) {
            table.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn client(text: &str) -> Option<ClientKey> {
        Some(text.parse::<IpAddr>().unwrap().into())
    }

    fn clients(counts: &ConnectionCounts) -> usize {
        counts.0.parts.iter().map(|part| part.lock().len()).sum()
    }

    #[test]
    fn limit_per_client_is_enforced_and_slots_are_freed() {
        let counts = ConnectionCounts::new(100, 2);
        let (one, other) = (client("192.0.2.1"), client("192.0.2.2"));
        let first = counts.admit(one).unwrap_or_else(|e| panic!("{e}"));
        let second = counts.admit(one);
        assert_eq!(counts.admit(one).err(), Some(LimitReached::PerClient));
        assert!(counts.admit(other).is_ok(), "other clients are not affected");
        drop(first);
        assert!(counts.admit(one).is_ok());
        drop(second);
        assert_eq!((counts.open(), clients(&counts)), (0, 0));
    }

    #[test]
    fn ipv6_clients_are_counted_per_64() {
        let counts = ConnectionCounts::new(100, 1);
        let _held = counts.admit(client("2001:db8:1:2::1"));
        assert_eq!(counts.admit(client("2001:db8:1:2::9")).err(), Some(LimitReached::PerClient));
        assert!(counts.admit(client("2001:db8:1:3::1")).is_ok());
    }

    #[test]
    fn total_limit_is_enforced_and_a_rejection_is_not_counted() {
        let counts = ConnectionCounts::new(3, usize::MAX);
        let held: Vec<_> = (1..=3).map(|n| counts.admit(Some(ClientKey(n)))).collect();
        assert_eq!(counts.admit(Some(ClientKey(1))).err(), Some(LimitReached::Total));
        assert_eq!(counts.admit(Some(ClientKey(4))).err(), Some(LimitReached::Total));
        assert_eq!((counts.open(), clients(&counts)), (3, 3));
        drop(held);
        assert_eq!((counts.open(), clients(&counts)), (0, 0));
        assert_eq!(ConnectionCounts::new(0, 1).admit(Some(ClientKey(1))).err(), Some(LimitReached::Total));
        assert_eq!(ConnectionCounts::new(1, 0).admit(Some(ClientKey(1))).err(), Some(LimitReached::PerClient));
    }

    #[tokio::test]
    async fn limits_change_while_connections_are_open() {
        let counts = ConnectionCounts::new(1, 1);
        let held = counts.admit(Some(ClientKey(1))).unwrap_or_else(|e| panic!("{e}"));
        let waiting = counts.clone();
        let wait = tokio::spawn(async move { waiting.wait_for_slot().await });
        tokio::task::yield_now().await;
        counts.set_limits(3, 2);
        wait.await.unwrap();
        let second = counts.admit(Some(ClientKey(1)));
        assert_eq!(counts.admit(Some(ClientKey(1))).err(), Some(LimitReached::PerClient));
        counts.set_limits(1, 1);
        assert_eq!(counts.open(), 2, "open connections stay");
        assert_eq!(counts.admit(Some(ClientKey(2))).err(), Some(LimitReached::Total));
        drop(held);
        drop(second);
        assert!(counts.admit(Some(ClientKey(2))).is_ok());
    }

    #[test]
    fn concurrent_threads_never_exceed_a_limit() {
        let counts = ConnectionCounts::new(50, 9);
        std::thread::scope(|threads| {
            for seed in 0..4 {
                let counts = &counts;
                threads.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut held = Vec::new();
                    for _ in 0..20_000 {
                        if random.bool() {
                            held.extend(counts.admit(Some(ClientKey(random.u64(..12)))));
                        } else if !held.is_empty() {
                            held.swap_remove(random.usize(..held.len()));
                        }
                        assert!(counts.open() <= 50);
                        let part = counts.0.part(ClientKey(3)).unwrap().lock();
                        assert!(part.get(&ClientKey(3)).is_none_or(|open| (1..=9).contains(open)));
                    }
                });
            }
        });
        assert_eq!((counts.open(), clients(&counts)), (0, 0));
    }

    #[tokio::test]
    async fn accepting_waits_at_the_limit_until_a_connection_closes() {
        let counts = ConnectionCounts::new(2, 2);
        counts.wait_for_slot().await;
        let first = counts.admit(Some(ClientKey(1))).unwrap_or_else(|e| panic!("{e}"));
        let second = counts.admit(Some(ClientKey(1)));
        let mut waits: Vec<_> = (0..2).map(|_| waiting(&counts)).collect();
        for wait in &mut waits {
            assert!(poll_once(wait).await.is_none(), "all slots are in use");
        }
        drop(first);
        for wait in waits {
            wait.await;
        }
        drop(second);
    }

    fn waiting(counts: &ConnectionCounts) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(counts.wait_for_slot())
    }

    /// Polls once.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn every_wait_ends_when_slots_become_free() {
        let counts = ConnectionCounts::new(1, 1);
        let mut loops = tokio::task::JoinSet::new();
        for n in 0..4 {
            let counts = counts.clone();
            loops.spawn(async move {
                let mut admitted = 0;
                while admitted < 500 {
                    counts.wait_for_slot().await;
                    if let Ok(slot) = counts.admit(Some(ClientKey(n))) {
                        admitted += 1;
                        tokio::task::yield_now().await;
                        drop(slot);
                    }
                }
            });
        }
        loops.join_all().await;
        assert_eq!((counts.open(), clients(&counts)), (0, 0));
    }
}
