//! The exact table: a fixed number of slots for the clients with the most usage.
//!
//! It is set-associative like a CPU cache: a client's key is hashed to one set of eight slots, and is only
//! looked up there. A request takes one small lock, shared with one in sixteen thousand of the other clients,
//! and reads one cache line of keys. The hash is randomly seeded for each limiter, so an attacker cannot choose
//! addresses that share a set with a victim.

use ahash::RandomState;
use parking_lot::Mutex;

use crate::http::client_address::ClientKey;

/// Slots per set.
const SET_SLOTS: usize = 8;

/// Bits of the hash that choose the set: 2^14 sets.
const SET_BITS: u32 = 14;

/// The table. Its size is fixed.
pub(super) struct Table<U> {
    sets: Box<[Mutex<Set<U>>]>,
    seed: RandomState,
}

impl<U: Copy + Default + PartialEq> Table<U> {
    /// An empty table with its own seed.
    pub(super) fn new() -> Self {
        let sets = (0..1_u32 << SET_BITS).map(|_| Mutex::new(Set::new())).collect();
        Self { sets, seed: RandomState::new() }
    }

    /// The set of `client`. It always exists; the option avoids a possible panic.
    pub(super) fn set(&self, client: ClientKey) -> Option<&Mutex<Set<U>>> {
        let upper = self.seed.hash_one(client) >> (u64::BITS - SET_BITS);
        self.sets.get(usize::try_from(upper).ok()?)
    }

    /// The number of slots.
    pub(super) fn slots(&self) -> usize {
        self.sets.len() * SET_SLOTS
    }

    /// The size of the table in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        size_of_val::<[Mutex<Set<U>>]>(&self.sets)
    }
}

/// Eight slots. Keys are stored together, apart from the usages, so that one cache line shows whether a client
/// has a slot.
pub(super) struct Set<U> {
    clients: [ClientKey; SET_SLOTS],
    usages: [U; SET_SLOTS],
    /// A small pseudo-random sequence to choose among equal clients. If the oldest always lost its slot,
    /// clients that return in turn would all be replaced just before they return, and none would be counted;
    /// with a random choice some stay and gain weight.
    chance: u8,
}

impl<U: Copy + Default + PartialEq> Set<U> {
    fn new() -> Self {
        Self { clients: [ClientKey(0); SET_SLOTS], usages: [U::default(); SET_SLOTS], chance: 0 }
    }

    /// The usage of `client` if it has a slot. A slot with the default usage is free, with any key.
    pub(super) fn find(&mut self, client: ClientKey) -> Option<&mut U> {
        let slots = self.clients.iter().zip(self.usages.iter_mut());
        let mut own = slots.filter(|(key, usage)| **key == client && **usage != U::default());
        own.next().map(|(_, usage)| usage)
    }

    /// Gives `client` the slot of the lightest client in the set, if it is heavier, or equal and `ties_move`.
    pub(super) fn place(
        &mut self,
        client: ClientKey,
        usage: U,
        ties_move: bool,
        weight: impl Fn(&U) -> u128,
    ) -> Placed<U> {
        // Modulo 256 this visits all numbers; the upper three bits choose one of the slots.
        self.chance = self.chance.wrapping_mul(5).wrapping_add(3);
        let first = usize::from(self.chance >> 5);
        let turn = |index: usize| (index + SET_SLOTS - first) % SET_SLOTS;
        let slots = self.clients.iter_mut().zip(self.usages.iter_mut()).enumerate();
        let lightest = slots
            .map(|(index, place)| (index, weight(place.1), place))
            .min_by_key(|(index, weight, _)| (*weight, turn(*index)));
        let own = weight(&usage);
        match lightest {
            Some((_, lightest, (key, held))) if lightest < own || (lightest == own && ties_move) => {
                let left = (*key, *held);
                (*key, *held) = (client, usage);
                if lightest > 0 { Placed::InsteadOf(left.0, left.1) } else { Placed::Free }
            }
            _ => Placed::Nowhere,
        }
    }
}

/// The result of requesting a slot.
pub(super) enum Placed<U> {
    /// A free slot.
    Free,
    /// The slot of this client, whose usage must be remembered elsewhere.
    InsteadOf(ClientKey, U),
    /// No slot: all clients in the set have at least the same weight. Its usage must be remembered elsewhere.
    Nowhere,
}
