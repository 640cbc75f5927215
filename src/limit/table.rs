//! The exact table: a fixed number of places for the clients that matter most.
//!
//! It is set-associative like a processor's cache: a client's key is hashed to one set of eight
//! places, and only there is it ever looked for. A request therefore takes one small lock that is
//! shared with one in sixteen thousand of the other clients, and looks at one cache line of keys.
//! The hash is seeded at random for each limiter, so nobody can choose addresses that share a set
//! with a victim.

use ahash::RandomState;
use parking_lot::Mutex;

use crate::net::ClientKey;

/// Places in a set.
const PLACES: usize = 8;

/// How many bits of the hash choose the set: 2^14 sets.
const SET_BITS: u32 = 14;

/// The table. Its size never changes.
pub(super) struct Table<U> {
    sets: Box<[Mutex<Set<U>>]>,
    seed: RandomState,
}

impl<U: Copy + Default + PartialEq> Table<U> {
    /// An empty table with a seed of its own.
    pub(super) fn new() -> Self {
        let sets = (0..1_u32 << SET_BITS).map(|_| Mutex::new(Set::new())).collect();
        Self { sets, seed: RandomState::new() }
    }

    /// The set that `client` belongs to. There always is one; the option is what looking it up
    /// without the possibility of a panic returns.
    pub(super) fn set(&self, client: ClientKey) -> Option<&Mutex<Set<U>>> {
        let upper = self.seed.hash_one(client) >> (u64::BITS - SET_BITS);
        self.sets.get(usize::try_from(upper).ok()?)
    }

    /// How many clients the table can hold.
    pub(super) fn places(&self) -> usize {
        self.sets.len() * PLACES
    }

    /// Bytes that the table takes.
    pub(super) fn size_bytes(&self) -> usize {
        size_of_val::<[Mutex<Set<U>>]>(&self.sets)
    }
}

/// Eight places. Keys lie together, apart from the usages, so that one cache line answers whether a
/// client is there.
pub(super) struct Set<U> {
    clients: [ClientKey; PLACES],
    usages: [U; PLACES],
    /// The place after the one that was taken last. Among equally light clients the one that has
    /// been there longest goes first, so that each has time to become heavier.
    next: u8,
}

impl<U: Copy + Default + PartialEq> Set<U> {
    fn new() -> Self {
        Self { clients: [ClientKey(0); PLACES], usages: [U::default(); PLACES], next: 0 }
    }

    /// The usage of `client` if it has a place. A place with the default usage is free, whatever
    /// key stands there.
    pub(super) fn find(&mut self, client: ClientKey) -> Option<&mut U> {
        let places = self.clients.iter().zip(self.usages.iter_mut());
        let mut own = places.filter(|(key, usage)| **key == client && **usage != U::default());
        own.next().map(|(_, usage)| usage)
    }

    /// Gives `client` the place of the lightest in the set, unless it is lighter than all of them.
    ///
    /// Returns who is left without a place and must be remembered elsewhere: the one that was
    /// there, or `client` itself; nobody if a place was free or what stood there weighed nothing.
    pub(super) fn place(&mut self, client: ClientKey, usage: U, weight: impl Fn(&U) -> u128) -> Option<(ClientKey, U)> {
        let next = usize::from(self.next);
        let turn = |index: usize| (index + PLACES - next) % PLACES;
        let places = self.clients.iter_mut().zip(self.usages.iter_mut()).enumerate();
        let (index, (key, held), lightest) = places
            .map(|(index, place)| (index, weight(place.1), place))
            .min_by_key(|(index, weight, _)| (*weight, turn(*index)))
            .map(|(index, weight, place)| (index, place, weight))?;
        if lightest > weight(&usage) {
            return Some((client, usage));
        }
        let left = (*key, *held);
        (*key, *held) = (client, usage);
        // The index is below eight, so it fits and the fallback is never taken.
        self.next = u8::try_from((index + 1) % PLACES).unwrap_or(0);
        (lightest > 0).then_some(left)
    }
}
