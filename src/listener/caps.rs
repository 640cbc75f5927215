//! How many connections may be open: in all, and for each client.
//!
//! Without a cap, whoever opens connections fastest takes all file descriptors, and then nobody gets
//! in and no backend is reached. At the total cap the accept loop waits ([`ConnectionCaps::wait_for_place`]):
//! further clients stand in the kernel's queue and are served when somebody leaves. At a client's own cap
//! its next connection is closed at once, so that one client cannot make all others wait.
//!
//! A client is an IPv4 address or an IPv6 /64, as for rate limits ([`ClientKey`]). The table holds no
//! more clients than there are connections, since an entry goes with its last one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::http::client_address::ClientKey;

/// The table is cut into 2^6 parts with a lock each, so that accept loops hardly ever meet.
const PART_BITS: u32 = 6;

/// The connections of each client of one part of the table.
type Part = Mutex<HashMap<ClientKey, usize, RandomState>>;

/// Both caps, and what is open. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct ConnectionCaps(Arc<Table>);

struct Table {
    total: AtomicUsize,
    per_client: AtomicUsize,
    open: AtomicUsize,
    /// Told when a place is free again after all were taken.
    freed: Notify,
    parts: Box<[Part]>,
    /// Seeded at random, so that nobody can choose addresses that share a part.
    seed: RandomState,
}

/// Why a connection must be closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// As many connections are open as may be.
    Total,
    /// As many of this client's are.
    PerClient,
}

impl Refused {
    /// The reason in one word, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::PerClient => "per_client",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Total => "too many connections",
            Self::PerClient => "too many connections of this client",
        })
    }
}

impl std::error::Error for Refused {}

/// The place of one open connection; dropping it gives the place back.
pub struct Slot {
    table: Arc<Table>,
    client: Option<ClientKey>,
}

impl ConnectionCaps {
    /// Caps of `total` connections and `per_client`; `usize::MAX` is no cap.
    #[must_use]
    pub fn new(total: usize, per_client: usize) -> Self {
        let parts = (0..1_u32 << PART_BITS).map(|_| Part::default()).collect();
        let seed = RandomState::new();
        let (total, per_client) = (AtomicUsize::new(total), AtomicUsize::new(per_client));
        Self(Arc::new(Table { total, per_client, open: AtomicUsize::new(0), freed: Notify::new(), parts, seed }))
    }

    /// From now on there may be `total` connections, and `per_client`. Those that are open beyond it stay.
    pub fn set(&self, total: usize, per_client: usize) {
        self.0.per_client.store(per_client, Ordering::SeqCst);
        self.0.total.store(total, Ordering::SeqCst);
        // There may be room now.
        self.0.freed.notify_waiters();
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::SeqCst)
    }

    /// Counts a connection of `client`; `None` is somebody who stands for many and has no cap, such
    /// as a trusted proxy.
    ///
    /// # Errors
    /// When a cap is reached; nothing is counted then.
    pub fn admit(&self, client: Option<ClientKey>) -> Result<Slot, Refused> {
        match client {
            Some(client) => self.admit_client(client),
            None => {
                self.0.take_place()?;
                Ok(Slot { table: Arc::clone(&self.0), client })
            }
        }
    }

    fn admit_client(&self, client: ClientKey) -> Result<Slot, Refused> {
        let table = &self.0;
        // There always is a part; without the possibility of a panic it is an option.
        let mut part = table.part(client).ok_or(Refused::Total)?.lock();
        let entry = part.entry(client);
        let own = if let Entry::Occupied(held) = &entry { *held.get() } else { 0 };
        if own >= table.per_client.load(Ordering::SeqCst) {
            return Err(Refused::PerClient);
        }
        table.take_place()?;
        *entry.or_insert(0) += 1;
        Ok(Slot { table: Arc::clone(table), client: Some(client) })
    }

    /// Waits until there is room for one more connection. Nothing is reserved: where several loops accept,
    /// the slower one is still refused. May be dropped at any time.
    pub async fn wait_for_place(&self) {
        let table = &self.0;
        while table.is_full() {
            let freed = table.freed.notified();
            tokio::pin!(freed);
            // From here on no notice is missed, so the second look must come after.
            freed.as_mut().enable();
            if table.is_full() {
                freed.await;
            }
        }
    }
}

impl Table {
    fn take_place(&self) -> Result<(), Refused> {
        let total = self.total.load(Ordering::SeqCst);
        let place = |open: usize| (open < total).then_some(open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, place).map_err(|_| Refused::Total)?;
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

    fn clients(caps: &ConnectionCaps) -> usize {
        caps.0.parts.iter().map(|part| part.lock().len()).sum()
    }

    #[test]
    fn a_client_has_its_own_cap_and_gets_its_places_back() {
        let caps = ConnectionCaps::new(100, 2);
        let (one, other) = (client("192.0.2.1"), client("192.0.2.2"));
        let first = caps.admit(one).unwrap_or_else(|e| panic!("{e}"));
        let second = caps.admit(one);
        assert_eq!(caps.admit(one).err(), Some(Refused::PerClient));
        assert!(caps.admit(other).is_ok(), "others are not concerned");
        drop(first);
        assert!(caps.admit(one).is_ok());
        drop(second);
        assert_eq!((caps.open(), clients(&caps)), (0, 0));
    }

    #[test]
    fn an_ipv6_client_is_a_64() {
        let caps = ConnectionCaps::new(100, 1);
        let _held = caps.admit(client("2001:db8:1:2::1"));
        assert_eq!(caps.admit(client("2001:db8:1:2::9")).err(), Some(Refused::PerClient));
        assert!(caps.admit(client("2001:db8:1:3::1")).is_ok());
    }

    #[test]
    fn the_total_is_a_cap_and_a_refusal_counts_nothing() {
        let caps = ConnectionCaps::new(3, usize::MAX);
        let held: Vec<_> = (1..=3).map(|n| caps.admit(Some(ClientKey(n)))).collect();
        assert_eq!(caps.admit(Some(ClientKey(1))).err(), Some(Refused::Total));
        assert_eq!(caps.admit(Some(ClientKey(4))).err(), Some(Refused::Total));
        assert_eq!((caps.open(), clients(&caps)), (3, 3));
        drop(held);
        assert_eq!((caps.open(), clients(&caps)), (0, 0));
        assert_eq!(ConnectionCaps::new(0, 1).admit(Some(ClientKey(1))).err(), Some(Refused::Total));
        assert_eq!(ConnectionCaps::new(1, 0).admit(Some(ClientKey(1))).err(), Some(Refused::PerClient));
    }

    #[tokio::test]
    async fn caps_change_while_connections_are_open() {
        let caps = ConnectionCaps::new(1, 1);
        let held = caps.admit(Some(ClientKey(1))).unwrap_or_else(|e| panic!("{e}"));
        let waiting = caps.clone();
        let wait = tokio::spawn(async move { waiting.wait_for_place().await });
        tokio::task::yield_now().await;
        caps.set(3, 2);
        wait.await.unwrap();
        let second = caps.admit(Some(ClientKey(1)));
        assert_eq!(caps.admit(Some(ClientKey(1))).err(), Some(Refused::PerClient));
        caps.set(1, 1);
        assert_eq!(caps.open(), 2, "nobody is sent away");
        assert_eq!(caps.admit(Some(ClientKey(2))).err(), Some(Refused::Total));
        drop(held);
        drop(second);
        assert!(caps.admit(Some(ClientKey(2))).is_ok());
    }

    #[test]
    fn threads_never_pass_a_cap_and_leave_nothing() {
        let caps = ConnectionCaps::new(50, 9);
        std::thread::scope(|threads| {
            for seed in 0..4 {
                let caps = &caps;
                threads.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut held = Vec::new();
                    for _ in 0..20_000 {
                        if random.bool() {
                            held.extend(caps.admit(Some(ClientKey(random.u64(..12)))));
                        } else if !held.is_empty() {
                            held.swap_remove(random.usize(..held.len()));
                        }
                        assert!(caps.open() <= 50);
                        let part = caps.0.part(ClientKey(3)).unwrap().lock();
                        assert!(part.get(&ClientKey(3)).is_none_or(|open| (1..=9).contains(open)));
                    }
                });
            }
        });
        assert_eq!((caps.open(), clients(&caps)), (0, 0));
    }

    #[tokio::test]
    async fn at_the_cap_accepting_waits_until_somebody_leaves() {
        let caps = ConnectionCaps::new(2, 2);
        caps.wait_for_place().await;
        let first = caps.admit(Some(ClientKey(1))).unwrap_or_else(|e| panic!("{e}"));
        let second = caps.admit(Some(ClientKey(1)));
        let mut waits: Vec<_> = (0..2).map(|_| waiting(&caps)).collect();
        for wait in &mut waits {
            assert!(poll_once(wait).await.is_none(), "all places are taken");
        }
        drop(first);
        for wait in waits {
            wait.await;
        }
        drop(second);
    }

    fn waiting(caps: &ConnectionCaps) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(caps.wait_for_place())
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
    async fn no_wait_is_forgotten() {
        let caps = ConnectionCaps::new(1, 1);
        let mut loops = tokio::task::JoinSet::new();
        for n in 0..4 {
            let caps = caps.clone();
            loops.spawn(async move {
                let mut admitted = 0;
                while admitted < 500 {
                    caps.wait_for_place().await;
                    if let Ok(slot) = caps.admit(Some(ClientKey(n))) {
                        admitted += 1;
                        tokio::task::yield_now().await;
                        drop(slot);
                    }
                }
            });
        }
        loops.join_all().await;
        assert_eq!((caps.open(), clients(&caps)), (0, 0));
    }
}
