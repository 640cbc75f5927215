//! The exact table: a fixed number of places for the clients that matter most.
//!
//! It is set-associative like a processor's cache: a client's key is hashed to one set of eight
//! places, and only there is it ever looked for. A request therefore takes one small lock that is
//! shared with one in sixteen thousand of the other clients, and looks at one cache line of keys.
//! The hash is seeded at random for each limiter, so nobody can choose addresses that share a set
//! with a victim.

use ahash::RandomState;
use parking_lot::Mutex;

use crate::http::client_address::ClientKey;

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
    /// A small pseudo-random sequence that chooses among equally light clients. If the oldest had
    /// to go, clients that come round in turn would all be pushed out just before they come back,
    /// and none would ever be counted; of a random choice some survive, and become heavier.
    chance: u8,
}

impl<U: Copy + Default + PartialEq> Set<U> {
    fn new() -> Self {
        Self { clients: [ClientKey(0); PLACES], usages: [U::default(); PLACES], chance: 0 }
    }

    /// The usage of `client` if it has a place. A place with the default usage is free, whatever
    /// key stands there.
    pub(super) fn find(&mut self, client: ClientKey) -> Option<&mut U> {
        let places = self.clients.iter().zip(self.usages.iter_mut());
        let mut own = places.filter(|(key, usage)| **key == client && **usage != U::default());
        own.next().map(|(_, usage)| usage)
    }

    /// Gives `client` the place of the lightest in the set, if it is heavier, or as heavy and
    /// `ties_move`.
    pub(super) fn place(
        &mut self,
        client: ClientKey,
        usage: U,
        ties_move: bool,
        weight: impl Fn(&U) -> u128,
    ) -> Placed<U> {
        // Modulo 256 this passes through all numbers; the upper three bits choose one of the places.
        self.chance = self.chance.wrapping_mul(5).wrapping_add(3);
        let first = usize::from(self.chance >> 5);
        let turn = |index: usize| (index + PLACES - first) % PLACES;
        let places = self.clients.iter_mut().zip(self.usages.iter_mut()).enumerate();
        let lightest = places
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

/// What became of a client that asked for a place.
pub(super) enum Placed<U> {
    /// It took a place where nothing was lost.
    Free,
    /// It took the place of this client, which must be remembered elsewhere.
    InsteadOf(ClientKey, U),
    /// All in the set are heavier, or as heavy: it must be remembered elsewhere itself.
    Nowhere,
}
