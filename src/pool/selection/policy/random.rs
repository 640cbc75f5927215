//! Random: each backend with a probability proportional to its weight.
//!
//! **Optimises** independence: requests, threads and processes share no state, so many balancers with the same
//! backends do not send bursts to the same backend.
//! **Cost**: one random number and two table lookups (Walker's alias method in the form of Vose 1991).
//! **Not for** a small number of requests, because random shares are uneven: with five backends, every fifth
//! request on average goes to the same backend as the previous request.

use fastrand::Rng;

use crate::pool::selection::choice::{Member, Policy, SelectionRequest, choose_any};

/// The number of draws without an accepted member after which all members are examined.
const DRAWS: usize = 8;

/// Draws indices with the probabilities of their weights, in constant time.
pub struct Weighted {
    /// For each column, the probability of its own index, in units of 2⁻³², and the index (alias) for the rest.
    columns: Box<[(u64, u32)]>,
}

const WHOLE: u64 = 1 << 32;

impl Weighted {
    fn of(weights: &[u32]) -> Self {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum::<u64>().max(1);
        let count = weights.len() as u64;
        let mut shares: Vec<u64> = weights.iter().map(|weight| (u64::from(*weight) * count * WHOLE) / total).collect();
        let mut columns: Vec<(u64, u32)> = (0..weights.len()).map(|index| (WHOLE, index as u32)).collect();
        let (mut underfull, mut overfull): (Vec<usize>, Vec<usize>) =
            (0..shares.len()).partition(|index| shares.get(*index).is_some_and(|share| *share < WHOLE));
        while let (Some(small), Some(large)) = (underfull.pop(), overfull.pop()) {
            let own = shares.get(small).copied().unwrap_or_default();
            if let Some(column) = columns.get_mut(small) {
                *column = (own, large as u32);
            }
            if let Some(share) = shares.get_mut(large) {
                *share -= WHOLE - own;
                if *share < WHOLE { underfull.push(large) } else { overfull.push(large) }
            }
        }
        Self { columns: columns.into() }
    }

    /// An index; `None` without members.
    pub fn draw(&self, random: &mut Rng) -> Option<usize> {
        let count = self.columns.len();
        if count == 0 {
            return None;
        }
        let column = random.usize(..count);
        let (own, other) = *self.columns.get(column)?;
        Some(if random.u64(..WHOLE) < own { column } else { other as usize })
    }

    /// The index of an accepted member other than `not`.
    pub fn draw_accepted(
        &self,
        members: &[Member],
        request: &mut SelectionRequest<'_>,
        not: Option<usize>,
    ) -> Option<usize> {
        for _ in 0..DRAWS {
            let index = self.draw(&mut request.random)?;
            if Some(index) != not && request.accepts(members.get(index)?) {
                return Some(index);
            }
        }
        None
    }
}

impl Policy for Weighted {
    type Config = ();

    fn build((): &(), members: &[Member]) -> Self {
        Self::of(&members.iter().map(|member| member.weight).collect::<Vec<_>>())
    }

    fn choose(&self, members: &[Member], request: &mut SelectionRequest<'_>) -> Option<usize> {
        self.draw_accepted(members, request, None).or_else(|| choose_any(members, request))
    }
}

/// Draws two members by weight, and returns the index of the better one.
pub(in crate::pool::selection) fn better_of_two(
    weighted: &Weighted,
    members: &[Member],
    request: &mut SelectionRequest<'_>,
    is_better: impl Fn(&Member, &Member, &SelectionRequest<'_>) -> bool,
) -> Option<usize> {
    let Some(first) = weighted.draw_accepted(members, request, None) else {
        return choose_any(members, request);
    };
    let Some(second) = weighted.draw_accepted(members, request, Some(first)) else {
        return Some(first);
    };
    Some(if is_better(members.get(first)?, members.get(second)?, request) { second } else { first })
}
