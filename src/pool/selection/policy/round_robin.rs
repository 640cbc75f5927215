//! Round robin: in order, each as often as its weight, spread evenly.
//!
//! **Optimises** evenness over time. It ignores the state of backends, so it fits requests of similar cost on
//! similar backends.
//! **Cost**: one atomic addition and one lookup in a table with one slot for each unit of weight.
//! **Not for** backends of different speed: a slow backend gets its full share of requests.
//!
//! Pingora's round robin places the slots of a backend in a row (3:1 is A A A B). This one spreads them by
//! worst-case fair queueing (WF²Q, Bennett and Zhang 1996): the k-th slot of a backend with share s may not
//! start before turn k/s, and among those that may start, the one due first does. 5:1:1 becomes A B A A C A A.
//! The turn of an unavailable backend goes to the backend after the next step of the shared counter, so its
//! share is spread over all others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pool::selection::choice::{Member, Policy, SelectionRequest, any};

/// Slots in order of their turns.
pub struct SmoothRoundRobin {
    /// Indices of members.
    slots: Box<[u32]>,
    next: AtomicUsize,
}

impl Policy for SmoothRoundRobin {
    type Config = ();

    fn build((): &(), members: &[Member]) -> Self {
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        Self { slots: schedule(&weights).into(), next: AtomicUsize::new(0) }
    }

    fn choose(&self, members: &[Member], ask: &mut SelectionRequest<'_>) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        for _ in 0..members.len().saturating_mul(2) {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
            let index = *self.slots.get(turn)? as usize;
            if ask.accepts(members.get(index)?) {
                return Some(index);
            }
        }
        // The heavy backends are unavailable and occupy most slots.
        any(members, ask)
    }
}

/// The turns of one round, as indices into `weights`.
fn schedule(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |a, b| greatest_common_divisor(a, u64::from(*b))).max(1);
    let weights: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) / divisor).collect();
    let total: u64 = weights.iter().sum();
    // Scaled so that fractions with the largest weights keep their order.
    let due = |slot: u64, weight: u64| ((slot + 1) << 32) / weight;
    let mut waiting: BinaryHeap<Reverse<(u64, usize, u64)>> = weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
        .map(|(index, _)| Reverse((0, index, 0)))
        .collect();
    let mut begun: BinaryHeap<Reverse<(u64, usize, u64)>> = BinaryHeap::new();
    let mut turns = Vec::new();
    for turn in 0..total {
        while let Some(Reverse((begin, index, slot))) = waiting.peek().copied().filter(|entry| entry.0.0 <= turn) {
            waiting.pop();
            debug_assert!(begin <= turn);
            let weight = weights.get(index).copied().unwrap_or(1);
            begun.push(Reverse((due(slot, weight), index, slot)));
        }
        let Some(Reverse((_, index, slot))) = begun.pop() else { continue };
        // A pool has at most 65,535 members.
        turns.push(index as u32);
        let weight = weights.get(index).copied().unwrap_or(1);
        if slot + 1 < weight {
            waiting.push(Reverse((((slot + 1) * total).div_ceil(weight), index, slot + 1)));
        }
    }
    turns
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_evenly() {
        assert_eq!(schedule(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(schedule(&[2, 2]), [0, 1], "a common divisor does not lengthen the round");
        assert_eq!(schedule(&[3, 1]), [0, 1, 0, 0]);
        assert_eq!(schedule(&[5, 1, 1]), [0, 1, 0, 0, 2, 0, 0]);
        assert_eq!(schedule(&[0, 1]), [1]);
        assert_eq!(schedule(&[]), [0; 0]);
    }

    #[test]
    fn every_unit_of_weight_gets_one_turn() {
        for weights in [vec![1000, 1, 7, 333], vec![1000; 3], vec![997, 991], vec![1, 2, 3, 4, 5, 6, 7]] {
            let turns = schedule(&weights);
            let total: u32 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let count = turns.iter().filter(|turn| **turn as usize == index).count();
                assert_eq!(count as u64 * u64::from(total), u64::from(*weight) * turns.len() as u64);
            }
        }
    }
}
