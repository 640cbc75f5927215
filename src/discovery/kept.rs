//! The last good list of a source, and the loop that keeps it current.
//!
//! Whatever happens to a source (it is down, slow, wrong, empty or unstable), its last good list stays in use. The list
//! is shared by the pools before and after a reload, and is saved for the next process.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::address_rules::{AddressRules, local_addresses};
use super::removal::{Effect, RemovalLimit, Verdict, moved_share};
use super::source::{FOUND_MAX, Found, Source, SourceName, found, reason};
use crate::base::backend_address::BackendAddress;
use crate::base::event::Event;
use crate::base::units::{Percent, PoolName, Timestamp};

/// The longest wait for a list.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The first pause after a failure. It doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest pause after a failure. A source that is back is noticed within it and one second.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// The shortest time between two lists, so that an unstable source does not keep a core busy.
const PAUSE: Duration = Duration::from_millis(20);

/// How the list of a source is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The accepted addresses.
    pub addresses: AddressRules,
    /// How long a list without more than half of the backends must persist before it applies.
    pub hold: Duration,
    /// The largest share of the requests to the backends that a list may move before it has persisted.
    pub max_moved: Option<Percent>,
    /// Whether an empty list applies, once it has persisted.
    pub accepts_empty: bool,
}

/// The state of a source, for operators.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// When the source last returned a list; `None` before the first one.
    pub listed: Option<Timestamp>,
    /// Why the last attempt failed; `None` if it succeeded.
    pub failure: Option<String>,
    /// Backends that stay although the source does not list them any more.
    pub held: usize,
    /// The share of the requests to its backends that a list would move which is held back, from 0 to 1.
    pub moves: Option<f64>,
    /// Listed backends that are not accepted, with the reason for the first one.
    pub rejected: Option<(usize, String)>,
}

/// What changes with each list.
#[derive(Default)]
struct State {
    current: Vec<Found>,
    limit: RemovalLimit,
    /// Until when missing backends stay, if they are held.
    held_until: Option<Instant>,
    /// Whether a removal was held, so that it is reported once.
    held_reported: bool,
    /// An operator has accepted the held list.
    is_accepted: bool,
    status: Status,
}

/// A source and its last good list.
pub struct Kept {
    pool: PoolName,
    name: SourceName,
    rules: Rules,
    source: Arc<dyn Source + Send + Sync>,
    state: Mutex<State>,
    /// Counts changes of the list.
    changes: watch::Sender<u64>,
    /// Whether the first attempt has ended, or there is a list of an earlier process.
    attempted: watch::Sender<bool>,
    /// Held by the loop: after a reload there may be two for a moment.
    running: tokio::sync::Mutex<()>,
    /// Notified when an operator accepts a held list.
    accepted: Notify,
}

impl Kept {
    /// The list of `source` in `pool`, empty so far.
    #[must_use]
    pub fn new(pool: PoolName, name: SourceName, rules: Rules, source: Arc<dyn Source + Send + Sync>) -> Self {
        Self {
            pool,
            name,
            rules,
            source,
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            attempted: watch::Sender::new(false),
            running: tokio::sync::Mutex::default(),
            accepted: Notify::new(),
        }
    }

    /// The name of the source.
    #[must_use]
    pub fn name(&self) -> &SourceName {
        &self.name
    }

    /// The backends of the last good list, and those that stay although they are not listed any more.
    #[must_use]
    pub fn current(&self) -> Vec<Found> {
        self.state.lock().current.clone()
    }

    /// The state of the source.
    #[must_use]
    pub fn status(&self) -> Status {
        self.state.lock().status.clone()
    }

    /// Whether an address is accepted.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, address: BackendAddress) -> Result<(), String> {
        self.rules.addresses.check(address, &is_local(&local_addresses()))
    }

    /// Notified after each change of the list, which the value counts.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Starts with the list of an earlier process, unless the source has returned one already.
    pub fn restore(&self, list: Vec<Found>, listed: Option<Timestamp>) {
        let mut state = self.state.lock();
        if state.status.listed.is_some() || list.is_empty() {
            return;
        }
        let local = local_addresses();
        let accepts = |found: &Found| self.rules.addresses.check(found.address, &is_local(&local)).is_ok();
        state.current = list.into_iter().filter(accepts).collect();
        state.status.listed = listed;
        drop(state);
        self.attempted.send_replace(true);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Lets a held list take effect now. Returns false if none is held.
    pub fn accept_held(&self) -> bool {
        let mut state = self.state.lock();
        state.is_accepted = state.held_until.is_some();
        if state.is_accepted {
            self.accepted.notify_one();
        }
        state.is_accepted
    }

    /// Waits until the first attempt has ended.
    pub async fn attempted(&self) {
        // The sender is here, so this ends with the value.
        self.attempted.subscribe().wait_for(|attempted| *attempted).await.ok();
    }

    /// Keeps the list current, until it is dropped.
    #[expect(clippy::disallowed_methods, reason = "the loop is where the times of lists come from")]
    pub async fn run(&self) {
        let _only = self.running.lock().await;
        let mut pause = RETRY_MIN;
        loop {
            let listed = match tokio::time::timeout(TIMEOUT, self.source.discover()).await {
                Ok(Ok((list, _))) => Ok(found(&list)),
                Ok(Err(e)) => Err(reason(&e)),
                Err(_) => Err(format!("no list within {TIMEOUT:?}")),
            };
            let listed = listed.and_then(|list| self.accept(list, Instant::now(), Timestamp::now()));
            self.attempted.send_replace(true);
            match listed {
                Ok(()) => {
                    pause = RETRY_MIN;
                    tokio::time::sleep(PAUSE).await;
                    self.wait().await;
                }
                Err(reason) => {
                    self.fail(reason);
                    tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 4.0)).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Waits for a change, or for the end of a hold.
    async fn wait(&self) {
        let until = self.state.lock().held_until;
        let held = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.source.changed() => {}
            () = held => {}
            () = self.accepted.notified() => {}
        }
    }

    /// Applies a list.
    ///
    /// # Errors
    /// Why it is rejected as a whole.
    fn accept(&self, listed: Vec<Found>, now: Instant, wall: Timestamp) -> Result<(), String> {
        if listed.len() > FOUND_MAX {
            return Err(format!("the list has {} backends, more than {FOUND_MAX}", listed.len()));
        }
        let (accepted, refused) = self.filter(listed);
        let rejected = match (self.source.rejected(), refused) {
            (Some((invalid, reason)), refused) => Some((invalid + refused.map_or(0, |(count, _)| count), reason)),
            (None, refused) => refused,
        };
        let mut state = self.state.lock();
        let recovered = state.status.failure.take().is_some();
        state.status.listed = Some(wall);
        let news =
            state.status.rejected.as_ref().map(|(count, _)| *count) != rejected.as_ref().map(|(count, _)| *count);
        state.status.rejected.clone_from(&rejected);
        let change = self.change(&mut state, accepted, now);
        let total = state.current.len();
        drop(state);
        let (pool, source) = (self.pool.clone(), self.name.to_string());
        if recovered {
            Event::DiscoveryRecovered { pool: pool.clone(), source: source.clone() }.announce();
        }
        if let Some((count, reason)) = rejected.filter(|_| news) {
            Event::DiscoveredBackendsRejected { pool: pool.clone(), source: source.clone(), count, reason }.announce();
        }
        if let Some(Change { added, removed }) = change {
            self.changes.send_modify(|count| *count += 1);
            Event::DiscoveryChanged { pool, source, added, removed, total }.announce();
        }
        Ok(())
    }

    /// The accepted backends in the order of addresses; the number of others with the reason for the first.
    fn filter(&self, listed: Vec<Found>) -> (Vec<Found>, Option<(usize, String)>) {
        let local = local_addresses();
        let (mut accepted, mut rejected) = (Vec::with_capacity(listed.len()), None);
        for found in listed {
            match self.rules.addresses.check(found.address, &is_local(&local)) {
                Ok(()) => accepted.push(found),
                Err(reason) => {
                    let (count, _) = rejected.get_or_insert_with(|| (0, format!("{}: {reason}", found.address)));
                    *count += 1;
                }
            }
        }
        accepted.sort_by_key(|found| found.address);
        accepted.dedup_by_key(|found| found.address);
        (accepted, rejected)
    }

    /// Replaces the current list, except for backends that must stay. `None` if nothing changes.
    fn change(&self, state: &mut State, mut listed: Vec<Found>, now: Instant) -> Option<Change> {
        let (missing, remaining): (Vec<Found>, Vec<Found>) = state
            .current
            .iter()
            .cloned()
            .partition(|found| listed.binary_search_by_key(&found.address, |other| other.address).is_err());
        let moved = self.rules.max_moved.map(|most| (moved_share(&state.current, &listed), most));
        let moved = moved.filter(|(share, most)| *share > most.share());
        let effect = Effect {
            current: state.current.len(),
            remaining: remaining.len(),
            listed: listed.len(),
            moves_too_many: moved.is_some(),
        };
        let hold = if std::mem::take(&mut state.is_accepted) { Duration::ZERO } else { self.rules.hold };
        let verdict = state.limit.decide(effect, (hold, self.rules.accepts_empty), now);
        let (is_applied, is_held_back) = (verdict == Verdict::Apply, matches!(verdict, Verdict::HoldAll(_)));
        let added = listed.len() - remaining.len();
        let removed = if is_applied { missing.len() } else { 0 };
        state.held_until = match verdict {
            Verdict::Hold(until) | Verdict::HoldAll(until) => Some(until),
            Verdict::Apply | Verdict::Keep => None,
        };
        state.status.held = missing.len() - removed;
        state.status.moves = moved.filter(|_| is_held_back).map(|(share, _)| share);
        let is_held = state.status.held > 0 || is_held_back;
        if is_held && !std::mem::replace(&mut state.held_reported, true) {
            self.announce_held(missing.len(), state.current.len(), moved.filter(|_| is_held_back));
        }
        state.held_reported = is_held;
        if is_held_back {
            return None;
        }
        if state.status.held > 0 {
            listed.extend(missing);
            listed.sort_by_key(|found| found.address);
        }
        if listed == state.current {
            return None;
        }
        state.current = listed;
        Some(Change { added, removed })
    }

    /// Reports a list that is held: because it moves too many requests, or because backends are missing.
    fn announce_held(&self, missing: usize, of: usize, moved: Option<(f64, Percent)>) {
        let (pool, source) = (self.pool.clone(), self.name.to_string());
        match moved {
            Some((share, most)) => {
                let moved = format!("{:.1}%", share * 100.0);
                Event::DiscoveryHeldBack { pool, source, moved, max_moved: most.to_string() }.announce();
            }
            None => Event::DiscoveryHeld { pool, source, missing, of }.announce(),
        }
    }

    /// Records a failure; the first of several is reported.
    fn fail(&self, reason: String) {
        let before = self.state.lock().status.failure.replace(reason.clone());
        if before.is_none() {
            let (pool, source) = (self.pool.clone(), self.name.to_string());
            Event::DiscoveryFailed { pool, source, reason }.announce();
        }
    }
}

/// The difference between two lists.
struct Change {
    added: usize,
    removed: usize,
}

fn is_local(addresses: &[IpAddr]) -> impl Fn(IpAddr) -> bool + '_ {
    |ip| ip.is_loopback() || addresses.contains(&ip)
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
