//! What the table had to forget, kept approximately by pingora-limits' count-min sketches.
//!
//! Two sketches take turns, one for each window. Rotation happens under a write lock with the
//! window's index compared inside it, so that two threads cannot rotate twice; pingora-limits' own
//! `Rate` reads the clock before its last reset and can get a negative difference.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use pingora_limits::estimator::Estimator;

use crate::net::ClientKey;

const HASHES: usize = 4;
/// Counters in each row of a sketch; 2 MiB for a sketch of four rows.
const SLOTS: usize = 1 << 16;

#[derive(Default)]
struct Generation {
    sketch: Option<Estimator>,
    /// The sum of everything remembered, for the expected noise.
    total: AtomicU64,
}

#[derive(Default)]
struct Generations {
    window: u64,
    current: Generation,
    previous: Generation,
}

/// The memory of forgotten clients. The sketches are made when first needed.
#[derive(Default)]
pub(super) struct Forgotten(RwLock<Generations>);

impl Forgotten {
    /// Remembers that `client` used `used` in window `window`.
    pub(super) fn remember(&self, client: ClientKey, used: u32, window: u64) {
        if used == 0 {
            return;
        }
        self.rotate(window);
        let generations = self.0.read();
        if let Some(sketch) = &generations.current.sketch {
            // A u32 fits into an isize of 64 bits.
            sketch.incr(client, used as isize);
            generations.current.total.fetch_add(u64::from(used), Ordering::Relaxed);
        }
    }

    /// What `client` used, as far as is known: all of window `window`, and of the one before the
    /// share `reach` (in 1/2^32).
    pub(super) fn recall(&self, client: ClientKey, window: u64, reach: u64) -> u32 {
        let generations = self.0.read();
        let (current, previous) = match window.saturating_sub(generations.window) {
            0 => (generations.current.recall(client), generations.previous.recall(client)),
            1 => (0, generations.current.recall(client)),
            _ => (0, 0),
        };
        let weighted = (u128::from(previous) * u128::from(reach)) >> 32;
        u32::try_from(u128::from(current) + weighted).unwrap_or(u32::MAX)
    }

    /// Makes the generations those of window `window` and the one before.
    fn rotate(&self, window: u64) {
        {
            let generations = self.0.read();
            if window <= generations.window && generations.current.sketch.is_some() {
                return;
            }
        }
        let mut generations = self.0.write();
        let behind = window.saturating_sub(generations.window);
        if behind > 0 {
            let oldest = std::mem::take(&mut generations.previous).cleared();
            let last = std::mem::replace(&mut generations.current, oldest);
            generations.previous = if behind == 1 { last } else { last.cleared() };
            generations.window = window;
        }
        generations.current.sketch.get_or_insert_with(|| Estimator::new(HASHES, SLOTS));
    }
}

impl Generation {
    /// The estimate, less what a client that used nothing would be expected to show.
    fn recall(&self, client: ClientKey) -> u64 {
        let Some(sketch) = &self.sketch else { return 0 };
        let noise = self.total.load(Ordering::Relaxed).div_ceil(SLOTS as u64);
        u64::try_from(sketch.get(client)).unwrap_or(0).saturating_sub(noise.saturating_sub(1))
    }

    fn cleared(self) -> Self {
        if let Some(sketch) = &self.sketch {
            sketch.reset();
        }
        Self { sketch: self.sketch, total: AtomicU64::new(0) }
    }
}
