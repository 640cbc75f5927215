//! The exact table of clients: sets of eight, each behind its own lock, hashed with a seed that
//! nobody outside knows, so that nobody can fill a set of somebody else.

use std::hash::BuildHasher;

use ahash::RandomState;
use parking_lot::Mutex;

use super::Verdict;
use super::algorithm::{Algorithm, Rule, State};
use super::forgotten::Forgotten;
use crate::net::ClientKey;

const WAYS: usize = 8;
const SETS: usize = 1 << 14;

/// One client. A `Copy` of 32 bytes, so a set fills four cache lines.
#[derive(Clone, Copy)]
struct Entry {
    client: ClientKey,
    state: State,
    /// What the client is taken to have used when it came; only what it used since is remembered
    /// when it is forgotten again.
    recalled: u32,
    occupied: bool,
}

const VACANT: Entry =
    Entry { client: ClientKey(0), state: State::VACANT, recalled: 0, occupied: false };

type Set = Mutex<[Entry; WAYS]>;

/// All clients that are known exactly, and the memory of those that are not.
pub(super) struct Table {
    rule: Rule,
    seed: RandomState,
    sets: Box<[Set]>,
    forgotten: Forgotten,
}

impl Table {
    pub(super) fn new(rule: Rule) -> Self {
        let sets = (0..SETS).map(|_| Mutex::new([VACANT; WAYS])).collect();
        Self { rule, seed: RandomState::new(), sets, forgotten: Forgotten::default() }
    }

    /// Decides about one request of `client` at `now`.
    pub(super) fn admit(&self, client: ClientKey, now: u64) -> Verdict {
        // The set index takes 14 bits of the hash; nothing else of it is needed.
        let index = (self.seed.hash_one(client.0) as usize) % SETS;
        let Some(set) = self.sets.get(index) else {
            return self.rule.admit(&mut self.rule.start(0, now), now);
        };
        let mut set = set.lock();
        if let Some(known) = set.iter_mut().find(|entry| entry.occupied && entry.client == client) {
            return self.rule.admit(&mut known.state, now);
        }
        let recalled = self.recall(client, now);
        let mut entry = Entry { client, state: self.rule.start(recalled, now), recalled, occupied: true };
        let verdict = self.rule.admit(&mut entry.state, now);
        self.place(&mut set, entry, now);
        verdict
    }

    /// Puts an entry where there is room, or in place of the one that used least.
    fn place(&self, set: &mut [Entry; WAYS], entry: Entry, now: u64) {
        let free = |entry: &&mut Entry| !entry.occupied || self.rule.is_spent(&entry.state, now);
        if let Some(room) = set.iter_mut().find(free) {
            *room = entry;
            return;
        }
        if let Some(least) = set.iter_mut().min_by_key(|entry| self.rule.used(&entry.state, now)) {
            let used = self.rule.used(&least.state, now).saturating_sub(least.recalled);
            self.forgotten.remember(least.client, used, now / self.rule.window);
            *least = entry;
        }
    }

    fn recall(&self, client: ClientKey, now: u64) -> u32 {
        let reach = if self.rule.algorithm == Algorithm::FixedWindow { 0 } else { self.rule.reach(now) };
        self.forgotten.recall(client, now / self.rule.window, reach)
    }
}
