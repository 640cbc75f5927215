//! What is remembered of clients that lost their place in the table: two count-min sketches.
//!
//! A sketch ([`Estimator`], from pingora-limits) adds each client's amount to one counter in each
//! of sixteen rows, and estimates it as the least of the sixteen. It never reports too little; it
//! reports too much if others share all sixteen counters. That *noise* would refuse the innocent in a
//! flood, so it is measured and taken off: the sketch is asked about keys that no client has, and
//! whatever it says about those is noise. As long as less than a third of the counters are
//! in use there is practically none, nothing is taken off, and estimates are exact.
//!
//! Amounts are never put down twice. A client that loses its place *raises* its counters to its
//! amount, as far as they are lower; noise is left out of that sum, because what is put in for it
//! would be measured as more noise. A client that got no place *adds* what it has used since it was
//! estimated a moment before.
//!
//! # Rotation
//!
//! There are two generations, the newest and the one before it, which stand for windows. pingora's
//! own `Rate` rotates by a flag and a time stamp that are separate atomics: it reads the clock before
//! the time of the last reset, so another thread's later reset makes `now - last_reset` underflow,
//! and requests are counted into the sketch that is just being cleared. Here the number of the
//! newest generation and both sketches are behind one read-write lock. Who reads or adds holds it
//! shared and names the generation that it means, so it meets that one or none; who rotates holds
//! it alone and looks again at the number, so a rotation happens once, and numbers only grow.
//! Requests of clients that have a place in the table never come here.

use std::array;
use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};

use parking_lot::RwLock;
use pingora_limits::estimator::Estimator;

use crate::http::client_address::ClientKey;

/// Rows of a sketch. While little is forgotten, more rows make noise far less likely than longer
/// ones do: it takes a collision in every row.
const ROWS: usize = 16;

/// Counters in a row.
const SLOTS: usize = 1 << 14;

/// How many keys of nobody a measurement of the noise asks about.
const PROBES: usize = 64;

/// After how many additions to a sketch its noise is measured again.
const MEASURE_EVERY: u64 = 256;

/// The memory of the forgotten.
pub(super) struct Forgotten {
    generations: RwLock<Generations>,
}

impl Forgotten {
    /// Nobody has been forgotten yet.
    pub(super) fn new() -> Self {
        let (current, previous) = (Sketch::default(), Sketch::default());
        Self { generations: RwLock::new(Generations { newest: 0, current, previous }) }
    }

    /// Remembers that a client that loses its place has used `amount` in `generation`.
    pub(super) fn raise(&self, generation: u64, client: ClientKey, amount: u64) {
        self.on_generation(generation, amount, |sketch| sketch.put(client, amount, sketch.raw(client)));
    }

    /// Remembers that a client that got no place has used `amount` in `generation`, of which
    /// `estimate` told with the same `tolerable_noise` what was known before.
    pub(super) fn add(&self, generation: u64, client: ClientKey, amount: u64, tolerable_noise: u64) {
        self.on_generation(generation, amount, |sketch| {
            sketch.put(client, amount, sketch.estimate(client, tolerable_noise));
        });
    }

    /// What `client` is believed to have used in `generation` when it was forgotten. Nothing is
    /// believed of a sketch with more than `tolerable_noise`.
    pub(super) fn estimate(&self, generation: u64, client: ClientKey, tolerable_noise: u64) -> u64 {
        let generations = self.generations.read();
        let sketch = generations.holding(generation);
        sketch.map_or(0, |sketch| sketch.estimate(client, tolerable_noise))
    }

    /// Whether the newest generation has become noisy, so that a place in the table is better than
    /// an estimate.
    pub(super) fn is_noisy(&self) -> bool {
        self.generations.read().current.noise.load(Ordering::Relaxed) > 0
    }

    /// Lets `put` have the sketch of `generation`, which becomes the newest if it is newer. A
    /// generation before the two newest is gone: what would be put there has no more influence.
    fn on_generation(&self, generation: u64, amount: u64, put: impl FnOnce(&Sketch)) {
        if amount == 0 {
            return;
        }
        if self.generations.read().newest < generation {
            self.generations.write().advance(generation);
        }
        if let Some(sketch) = self.generations.read().holding(generation) {
            put(sketch);
        }
    }

    /// Bytes that the sketches take once both are in use.
    pub(super) fn size_bytes() -> usize {
        2 * ROWS * SLOTS * size_of::<AtomicIsize>()
    }
}

/// The two generations that still matter.
struct Generations {
    /// The number of the newest generation; the other's is one less.
    newest: u64,
    current: Sketch,
    previous: Sketch,
}

impl Generations {
    /// The sketch of `generation`, if it is one of the two.
    fn holding(&self, generation: u64) -> Option<&Sketch> {
        match self.newest.checked_sub(generation) {
            Some(0) => Some(&self.current),
            Some(1) => Some(&self.previous),
            _ => None,
        }
    }

    /// Makes `generation` the newest, unless one as new has been reached already.
    fn advance(&mut self, generation: u64) {
        let steps = generation.saturating_sub(self.newest);
        if steps == 0 {
            return;
        }
        mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
        if steps > 1 {
            self.previous.clear();
        }
        self.newest = generation;
    }
}

/// One generation's sketch. It is allocated when the first client is forgotten, which for most
/// limiters is never.
#[derive(Default)]
struct Sketch {
    counters: OnceLock<Estimator>,
    /// How many times something was added.
    additions: AtomicU64,
    /// What is taken off each estimate, in the unit of the amounts.
    noise: AtomicU64,
}

/// A key that no client has: it is hashed from two numbers, a client's from one.
#[derive(Hash)]
struct Probe {
    measurement: u64,
    index: usize,
}

impl Sketch {
    /// Puts down the part of `amount` that is not `known` yet.
    fn put(&self, client: ClientKey, amount: u64, known: u64) {
        let missing = amount.saturating_sub(known);
        if missing == 0 {
            return;
        }
        let counters = self.counters.get_or_init(|| Estimator::new(ROWS, SLOTS));
        counters.incr(client, isize::try_from(missing).unwrap_or(isize::MAX));
        // Relaxed is enough here and below: the numbers guide estimates and guard no other memory.
        let additions = self.additions.fetch_add(1, Ordering::Relaxed) + 1;
        if additions.is_multiple_of(MEASURE_EVERY) {
            // Noise only grows until the sketch is cleared, so a lucky measurement changes nothing.
            self.noise.fetch_max(measured_noise(counters, additions), Ordering::Relaxed);
        }
    }

    /// The least of the client's counters, noise and all.
    fn raw(&self, client: ClientKey) -> u64 {
        if self.additions.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.counters.get().map_or(0, |counters| least(counters.get(client)))
    }

    fn estimate(&self, client: ClientKey, tolerable_noise: u64) -> u64 {
        let noise = self.noise.load(Ordering::Relaxed);
        if noise > tolerable_noise { 0 } else { self.raw(client).saturating_sub(noise) }
    }

    fn clear(&mut self) {
        if mem::take(self.additions.get_mut()) > 0 {
            *self.noise.get_mut() = 0;
            if let Some(counters) = self.counters.get() {
                counters.reset();
            }
        }
    }
}

/// What `counters` say about `PROBES` keys of nobody, with a margin: the most that any of them is
/// charged, and once more as far as that is from the median. The margin makes it unlikely that a
/// newcomer is charged for others, at the price of forgiving a returning client that much.
fn measured_noise(counters: &Estimator, measurement: u64) -> u64 {
    let mut noise: [u64; PROBES] = array::from_fn(|index| least(counters.get(Probe { measurement, index })));
    noise.sort_unstable();
    let median = noise.get(PROBES / 2).copied().unwrap_or(0);
    let most = noise.last().copied().unwrap_or(0);
    most.saturating_add(most - median)
}

/// A sketch's answer as an amount. Counters that overflowed are negative; they count as nothing,
/// because the innocent must not pay.
fn least(answer: isize) -> u64 {
    u64::try_from(answer).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientKey = ClientKey(7);

    fn estimate(forgotten: &Forgotten, generation: u64) -> u64 {
        forgotten.estimate(generation, CLIENT, u64::MAX)
    }

    #[test]
    fn nothing_is_counted_twice() {
        let forgotten = Forgotten::new();
        for amount in [3, 5, 5, 4] {
            forgotten.raise(0, CLIENT, amount);
        }
        assert_eq!(estimate(&forgotten, 0), 5);
        forgotten.add(0, CLIENT, 6, u64::MAX);
        assert_eq!(estimate(&forgotten, 0), 6);
    }

    #[test]
    fn generations_come_and_go() {
        let forgotten = Forgotten::new();
        forgotten.raise(4, CLIENT, 40);
        forgotten.raise(5, CLIENT, 50);
        assert_eq!([3, 4, 5, 6].map(|g| estimate(&forgotten, g)), [0, 40, 50, 0]);
        forgotten.raise(6, ClientKey(8), 1);
        assert_eq!([4, 5, 6].map(|g| estimate(&forgotten, g)), [0, 50, 0]);
        forgotten.raise(4, CLIENT, 1);
        assert_eq!([4, 5, 6].map(|g| estimate(&forgotten, g)), [0, 50, 0], "what is gone stays gone");
        forgotten.raise(90, ClientKey(8), 1);
        assert_eq!([6, 89, 90].map(|g| estimate(&forgotten, g)), [0, 0, 0]);
    }

    #[test]
    fn noise_is_taken_off_and_too_much_of_it_says_nothing() {
        let forgotten = Forgotten::new();
        for key in 0..5000 {
            forgotten.add(0, ClientKey(1000 + key), 1, 10);
        }
        assert!(!forgotten.is_noisy());
        for key in 0..200_000 {
            forgotten.add(0, ClientKey(1_000_000 + key), 1, 0);
        }
        assert!(forgotten.is_noisy());
        let charged = (0..10_000).filter(|key| forgotten.estimate(0, ClientKey(1 << 40 | key), u64::MAX) > 0).count();
        assert!(charged <= 10, "{charged} of 10,000 are charged for others");
        forgotten.raise(0, CLIENT, 1_000_000);
        assert!(estimate(&forgotten, 0) > 999_900);
        assert_eq!(forgotten.estimate(0, CLIENT, 0), 0);
    }

    /// Threads that are not of one mind about the time meet the generation that they mean or none.
    #[test]
    fn rotation_loses_nothing_that_is_still_held() {
        let forgotten = Forgotten::new();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let forgotten = &forgotten;
                scope.spawn(move || {
                    for generation in 0..50 {
                        forgotten.raise(generation, ClientKey(thread), generation + 1);
                        let seen = forgotten.estimate(generation, ClientKey(thread), u64::MAX);
                        assert!(seen == generation + 1 || seen == 0, "{seen} in {generation}");
                    }
                });
            }
        });
        let last = [0, 1, 2, 3].map(|thread| forgotten.estimate(49, ClientKey(thread), u64::MAX));
        assert_eq!(last, [50; 4]);
    }
}
