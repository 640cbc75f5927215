//! Random: each backend with a probability proportional to its weight.
//!
//! **Optimises** independence: no state is shared between requests, threads or processes, so many balancers in
//! front of the same backends do not synchronise.
//! **Cost**: one random number and two table lookups (Walker's alias method in the form of Vose 1991).
//! **Not for** few requests, where chance is uneven: of five backends, every fifth request goes to the same one
//! as the request before.

use fastrand::Rng;

use crate::pool::selection::choice::{Member, Policy, SelectionRequest, any};

/// Draws that are not accepted before all members are examined.
const DRAWS: usize = 8;

/// Draws indices with the probabilities of their weights, in constant time.
pub struct Weighted {
    /// Each column: its own part, of 2³², and the index that owns the rest.
    columns: Box<[(u64, u32)]>,
}

const WHOLE: u64 = 1 << 32;

impl Weighted {
    fn of(weights: &[u32]) -> Self {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum::<u64>().max(1);
        let count = weights.len() as u64;
        let mut shares: Vec<u64> = weights.iter().map(|weight| (u64::from(*weight) * count * WHOLE) / total).collect();
        let mut columns: Vec<(u64, u32)> = (0..weights.len()).map(|index| (WHOLE, index as u32)).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) =
            (0..shares.len()).partition(|index| shares.get(*index).is_some_and(|share| *share < WHOLE));
        while let (Some(small), Some(large)) = (poor.pop(), rich.pop()) {
            let own = shares.get(small).copied().unwrap_or_default();
            if let Some(column) = columns.get_mut(small) {
                *column = (own, large as u32);
            }
            if let Some(share) = shares.get_mut(large) {
                *share -= WHOLE - own;
                if *share < WHOLE { poor.push(large) } else { rich.push(large) }
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
        ask: &mut SelectionRequest<'_>,
        not: Option<usize>,
    ) -> Option<usize> {
        for _ in 0..DRAWS {
            let index = self.draw(&mut ask.random)?;
            if Some(index) != not && ask.accepts(members.get(index)?) {
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

    fn choose(&self, members: &[Member], ask: &mut SelectionRequest<'_>) -> Option<usize> {
        self.draw_accepted(members, ask, None).or_else(|| any(members, ask))
    }
}

/// Draws two members by weight and returns the better one.
pub(in crate::pool::selection) fn better_of_two(
    weighted: &Weighted,
    members: &[Member],
    ask: &mut SelectionRequest<'_>,
    is_better: impl Fn(&Member, &Member, &SelectionRequest<'_>) -> bool,
) -> Option<usize> {
    let Some(first) = weighted.draw_accepted(members, ask, None) else {
        return any(members, ask);
    };
    let Some(second) = weighted.draw_accepted(members, ask, Some(first)) else {
        return Some(first);
    };
    Some(if is_better(members.get(first)?, members.get(second)?, ask) { second } else { first })
}
