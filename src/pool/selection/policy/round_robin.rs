//! Round robin: backends in turn, each as often as its weight, spread evenly.
//!
//! **Optimises** even shares over time. It does not depend on the load of backends, so it fits requests of similar
//! cost on similar backends.
//! **Cost**: one atomic addition and one lookup in a table with one slot for each unit of weight.
//! **Not for** backends of different speed: a slow backend gets its full share of requests.
//!
//! Pingora's round robin places the slots of a backend in a row (3:1 is A A A B). This one spreads them by
//! worst-case fair weighted fair queueing (WF²Q, Bennett and Zhang 1996): the k-th slot of a backend with share s
//! is not eligible before turn k/s, and each turn takes the eligible slot that is due first. 5:1:1 becomes
//! A B A A C A A. If the backend of a turn is unavailable, the request takes the next turn of the shared counter, so
//! the share of an unavailable backend is spread over all others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pool::selection::choice::{Member, Policy, SelectionRequest, choose_any};

/// The slots in the order of their turns.
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

    fn choose(&self, members: &[Member], request: &mut SelectionRequest<'_>) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        for _ in 0..members.len().saturating_mul(2) {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
            let index = *self.slots.get(turn)? as usize;
            if request.accepts(members.get(index)?) {
                return Some(index);
            }
        }
        // Most slots belong to unavailable backends with a large weight.
        choose_any(members, request)
    }
}

/// The turns of one round, as indices into `weights`.
fn schedule(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |a, b| greatest_common_divisor(a, u64::from(*b))).max(1);
    let weights: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) / divisor).collect();
    let total: u64 = weights.iter().sum();
    // Scaled so that fractions with the largest weights keep their order.
    let due = |slot: u64, weight: u64| ((slot + 1) << 32) / weight;
    let mut pending: BinaryHeap<Reverse<(u64, usize, u64)>> = weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
        .map(|(index, _)| Reverse((0, index, 0)))
        .collect();
    let mut eligible: BinaryHeap<Reverse<(u64, usize, u64)>> = BinaryHeap::new();
    let mut turns = Vec::new();
    for turn in 0..total {
        while let Some(Reverse((eligible_at, index, slot))) = pending.peek().copied().filter(|entry| entry.0.0 <= turn)
        {
            pending.pop();
            debug_assert!(eligible_at <= turn);
            let weight = weights.get(index).copied().unwrap_or(1);
            eligible.push(Reverse((due(slot, weight), index, slot)));
        }
        let Some(Reverse((_, index, slot))) = eligible.pop() else { continue };
        // A pool has at most 65,535 members.
        turns.push(index as u32);
        let weight = weights.get(index).copied().unwrap_or(1);
        if slot + 1 < weight {
            pending.push(Reverse((((slot + 1) * total).div_ceil(weight), index, slot + 1)));
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
