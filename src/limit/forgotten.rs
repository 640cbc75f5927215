//! What is remembered of clients that lost their place in the table: two count-min sketches.
//!
//! A sketch ([`Estimator`], from pingora-limits) adds each client's amount to one counter in each
//! of eight rows, and estimates it as the least of the eight. It never reports too little; it
//! reports too much if others share all eight counters. That *noise* would refuse the innocent in a
//! flood, so it is measured and taken off: the sketch is asked about keys that no client has, and
//! whatever it says about those is noise. As long as up to a tenth of the counters are in use there
//! is none, nothing is taken off, and estimates are exact.
//!
//! Amounts are *raised to*, not added: a client that is forgotten, comes back and is forgotten again
//! is brought to its present amount, so nothing is counted twice.
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

use crate::net::ClientKey;

/// Rows of a sketch. While little is forgotten, more rows make noise far less likely than longer
/// ones do: it takes a collision in every row.
const ROWS: usize = 8;

/// Counters in a row.
const SLOTS: usize = 1 << 15;

/// How many keys of nobody a measurement of the noise asks about.
const PROBES: usize = 32;

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

    /// Sees to it that in `generation` the estimate of `client` is at least `amount`. Generations
    /// before the two newest are gone, and what would be put there has no more influence.
    pub(super) fn raise(&self, generation: u64, client: ClientKey, amount: u64) {
        if amount == 0 {
            return;
        }
        if self.generations.read().newest < generation {
            self.generations.write().advance(generation);
        }
        if let Some(sketch) = self.generations.read().holding(generation) {
            sketch.raise(client, amount);
        }
    }

    /// What `client` is believed to have used in `generation` when it was forgotten.
    pub(super) fn estimate(&self, generation: u64, client: ClientKey) -> u64 {
        let generations = self.generations.read();
        generations.holding(generation).map_or(0, |sketch| sketch.estimate(client))
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
    fn raise(&self, client: ClientKey, amount: u64) {
        let missing = amount.saturating_sub(self.estimate(client));
        if missing == 0 {
            return;
        }
        let counters = self.counters.get_or_init(|| Estimator::new(ROWS, SLOTS));
        counters.incr(client, isize::try_from(missing).unwrap_or(isize::MAX));
        // Relaxed is enough here and below: the numbers guide estimates and guard no other memory.
        let additions = self.additions.fetch_add(1, Ordering::Relaxed) + 1;
        if additions.is_multiple_of(MEASURE_EVERY) {
            self.noise.store(measured_noise(counters, additions), Ordering::Relaxed);
        }
    }

    fn estimate(&self, client: ClientKey) -> u64 {
        if self.additions.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let Some(counters) = self.counters.get() else {
            return 0;
        };
        least(counters.get(client)).saturating_sub(self.noise.load(Ordering::Relaxed))
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
