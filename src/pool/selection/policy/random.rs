//! Random: each backend with the probability that its weight says.
//!
//! **Optimises** independence: nothing is shared between requests, threads or processes, so many
//! balancers in front of the same backends do not fall into step.
//! **Cost**: one random number and one look into two tables (Walker's alias method, as by Vose 1991).
//! **Not for** few requests: chance is uneven in the small. Two in a row hit the same one of five
//! backends every fifth time.

use fastrand::Rng;

use crate::pool::selection::choice::{Ask, Member, Policy, any};

/// How often a draw that cannot be used is repeated before all are looked at.
const DRAWS: usize = 8;

/// Draws indices with the probabilities of their weights, in constant time.
pub struct Weighted {
    /// For each column: how much of it is its own, of 2³², and whose the rest is.
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

    /// An index; `None` where there is nothing to draw from.
    pub fn draw(&self, random: &mut Rng) -> Option<usize> {
        let count = self.columns.len();
        if count == 0 {
            return None;
        }
        let column = random.usize(..count);
        let (own, other) = *self.columns.get(column)?;
        Some(if random.u64(..WHOLE) < own { column } else { other as usize })
    }

    /// An index of a member that the request accepts, other than `not`.
    pub fn draw_accepted(&self, members: &[Member], ask: &mut Ask<'_>, not: Option<usize>) -> Option<usize> {
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

    fn choose(&self, members: &[Member], ask: &mut Ask<'_>) -> Option<usize> {
        self.draw_accepted(members, ask, None).or_else(|| any(members, ask))
    }
}

/// Draws two members by weight and takes the second if it is better than the first.
pub(in crate::pool::selection) fn better_of_two(
    weighted: &Weighted,
    members: &[Member],
    ask: &mut Ask<'_>,
    is_better: impl Fn(&Member, &Member, &Ask<'_>) -> bool,
) -> Option<usize> {
    let Some(first) = weighted.draw_accepted(members, ask, None) else {
        return any(members, ask);
    };
    let Some(second) = weighted.draw_accepted(members, ask, Some(first)) else {
        return Some(first);
    };
    Some(if is_better(members.get(first)?, members.get(second)?, ask) { second } else { first })
}
