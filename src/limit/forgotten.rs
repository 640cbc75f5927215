//! The memory of clients that lost their slot in the table: two count-min sketches.
//!
//! A sketch ([`Estimator`], from pingora-limits) adds the amount of a client to one counter in each of sixteen
//! rows, and estimates it as the minimum of the sixteen. It never underestimates; it overestimates if other
//! clients share all sixteen counters. This *noise* would reject clients within their limit during a flood, so
//! it is measured and subtracted: the sketch is queried for keys that no client has, and its estimates for
//! those are noise. While less than a third of the counters are in use there is practically no noise, and
//! estimates are exact.
//!
//! Amounts are never added twice. A client that loses its slot *raises* its counters to its amount, if they are
//! lower; noise is not included, because it would be measured as more noise. A client without a slot *adds*
//! what it has used since its estimate a moment before.
//!
//! # Rotation
//!
//! There are two generations, the newest and the one before it, which correspond to windows. Pingora's own
//! `Rate` rotates with a flag and a timestamp that are separate atomics: it reads the clock before the time of
//! the last reset, so a later reset by another thread makes `now - last_reset` underflow, and requests are
//! counted in the sketch that is being cleared. Here the number of the newest generation and both sketches are
//! behind one read-write lock. Readers and writers hold it shared and name the generation that they mean, so
//! they get that one or none. A rotation holds it exclusively and checks the number again, so it happens once,
//! and numbers only grow. Requests of clients with a slot in the table do not use this memory.

use std::array;
use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};

use parking_lot::RwLock;
use pingora_limits::estimator::Estimator;

use crate::http::client_address::ClientKey;

/// Rows of a sketch. While few clients are forgotten, more rows reduce noise far more than longer rows: a
/// collision must happen in every row.
const ROWS: usize = 16;

/// Counters per row.
const SLOTS: usize = 1 << 14;

/// The number of unused keys in a measurement of noise.
const PROBES: usize = 64;

/// The number of additions after which noise is measured again.
const MEASURE_EVERY: u64 = 256;

/// The memory of forgotten clients.
pub(super) struct Forgotten {
    generations: RwLock<Generations>,
}

impl Forgotten {
    /// An empty memory.
    pub(super) fn new() -> Self {
        let (current, previous) = (Sketch::default(), Sketch::default());
        Self { generations: RwLock::new(Generations { newest: 0, current, previous }) }
    }

    /// Records that a client that loses its slot has used `amount` in `generation`.
    pub(super) fn raise(&self, generation: u64, client: ClientKey, amount: u64) {
        self.on_generation(generation, amount, |sketch| sketch.put(client, amount, sketch.raw(client)));
    }

    /// Records that a client without a slot has used `amount` in `generation`, of which `estimate` with the
    /// same `tolerable_noise` returned the known part before.
    pub(super) fn add(&self, generation: u64, client: ClientKey, amount: u64, tolerable_noise: u64) {
        self.on_generation(generation, amount, |sketch| {
            sketch.put(client, amount, sketch.estimate(client, tolerable_noise));
        });
    }

    /// The estimated amount that `client` had used in `generation` when it was forgotten. A sketch with more
    /// than `tolerable_noise` returns nothing.
    pub(super) fn estimate(&self, generation: u64, client: ClientKey, tolerable_noise: u64) -> u64 {
        let generations = self.generations.read();
        let sketch = generations.holding(generation);
        sketch.map_or(0, |sketch| sketch.estimate(client, tolerable_noise))
    }

    /// Whether the newest generation is noisy, so that a slot in the table is better than an estimate.
    pub(super) fn is_noisy(&self) -> bool {
        self.generations.read().current.noise.load(Ordering::Relaxed) > 0
    }

    /// Calls `put` with the sketch of `generation`, which becomes the newest if it is newer. A generation
    /// before the two newest is dropped: it has no influence any more.
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

    /// The size of the sketches in bytes once both are in use.
    pub(super) fn size_bytes() -> usize {
        2 * ROWS * SLOTS * size_of::<AtomicIsize>()
    }
}

/// The two relevant generations.
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

    /// Makes `generation` the newest, unless it was reached already.
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

/// The sketch of one generation. It is allocated when the first client is forgotten, which for most limiters
/// never happens.
#[derive(Default)]
struct Sketch {
    counters: OnceLock<Estimator>,
    /// The number of additions.
    additions: AtomicU64,
    /// The noise that is subtracted from each estimate, in the unit of the amounts.
    noise: AtomicU64,
}

/// A key that no client has: it is hashed from two numbers, a client from one.
#[derive(Hash)]
struct Probe {
    measurement: u64,
    index: usize,
}

impl Sketch {
    /// Adds the part of `amount` that is not `known` yet.
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
            // Noise only grows until the sketch is cleared, so a low measurement changes nothing.
            self.noise.fetch_max(measured_noise(counters, additions), Ordering::Relaxed);
        }
    }

    /// The minimum of the client's counters, including noise.
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

/// The noise in `counters`, by `PROBES` unused keys, with a margin: the largest estimate, plus its distance
/// from the median. The margin makes it unlikely that a new client is charged for others, at the price of
/// forgiving a returning client that amount.
fn measured_noise(counters: &Estimator, measurement: u64) -> u64 {
    let mut noise: [u64; PROBES] = array::from_fn(|index| least(counters.get(Probe { measurement, index })));
    noise.sort_unstable();
    let median = noise.get(PROBES / 2).copied().unwrap_or(0);
    let most = noise.last().copied().unwrap_or(0);
    most.saturating_add(most - median)
}

/// An estimate as an amount. Overflowed counters are negative and count as zero, in favour of the client.
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
    fn amount_is_not_counted_twice() {
        let forgotten = Forgotten::new();
        for amount in [3, 5, 5, 4] {
            forgotten.raise(0, CLIENT, amount);
        }
        assert_eq!(estimate(&forgotten, 0), 5);
        forgotten.add(0, CLIENT, 6, u64::MAX);
        assert_eq!(estimate(&forgotten, 0), 6);
    }

    #[test]
    fn generations_rotate() {
        let forgotten = Forgotten::new();
        forgotten.raise(4, CLIENT, 40);
        forgotten.raise(5, CLIENT, 50);
        assert_eq!([3, 4, 5, 6].map(|g| estimate(&forgotten, g)), [0, 40, 50, 0]);
        forgotten.raise(6, ClientKey(8), 1);
        assert_eq!([4, 5, 6].map(|g| estimate(&forgotten, g)), [0, 50, 0]);
        forgotten.raise(4, CLIENT, 1);
        assert_eq!([4, 5, 6].map(|g| estimate(&forgotten, g)), [0, 50, 0], "dropped generations stay dropped");
        forgotten.raise(90, ClientKey(8), 1);
        assert_eq!([6, 89, 90].map(|g| estimate(&forgotten, g)), [0, 0, 0]);
    }

    #[test]
    fn noise_is_subtracted_and_a_noisy_sketch_returns_nothing() {
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
        assert!(charged <= 10, "{charged} of 10,000 are charged for other clients");
        forgotten.raise(0, CLIENT, 1_000_000);
        assert!(estimate(&forgotten, 0) > 999_900);
        assert_eq!(forgotten.estimate(0, CLIENT, 0), 0);
    }

    /// Threads with different clocks get the generation that they mean or none.
    #[test]
    fn rotation_keeps_the_two_newest_generations() {
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
