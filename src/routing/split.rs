//! Shares: selects one of several pools by weight.

/// Values with weights.
#[derive(Clone, Debug)]
pub struct Split<T> {
    shares: Vec<(u32, T)>,
    total: u32,
}

impl<T> Split<T> {
    /// A split by these weights; `None` if all are 0 or their sum exceeds 32 bits.
    #[must_use]
    pub fn new(shares: Vec<(u32, T)>) -> Option<Self> {
        let total = shares.iter().try_fold(0_u32, |total, (weight, _)| total.checked_add(*weight))?;
        (total > 0).then_some(Self { shares, total })
    }

    /// A split without values.
    #[must_use]
    pub fn empty() -> Self {
        Self { shares: Vec::new(), total: 0 }
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.shares.iter().map(|(_, target)| target)
    }

    /// The values with their weights.
    pub fn shares(&self) -> impl Iterator<Item = (u32, &T)> {
        self.shares.iter().map(|(weight, target)| (*weight, target))
    }

    /// Whether there is only one value.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.shares.len() == 1
    }

    /// The value for a number. Numbers distributed evenly over 64 bits select each value in proportion to its
    /// weight, and the same number always selects the same value.
    #[must_use]
    pub fn of(&self, number: u64) -> Option<(usize, &T)> {
        // Scaled instead of a remainder: equally even, and it uses the upper half of a hash.
        let mut left = (u128::from(number) * u128::from(self.total)) >> 64;
        let found = self.shares.iter().enumerate().find(|(_, (weight, _))| {
            let here = left < u128::from(*weight);
            left = left.saturating_sub(u128::from(*weight));
            here
        });
        found.map(|(index, (_, share))| (index, share))
    }

    /// The value at an index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.shares.get(index).map(|(_, share)| share)
    }

    /// The index of the first value with a positive weight for which `wanted` returns true.
    pub fn position(&self, mut wanted: impl FnMut(&T) -> bool) -> Option<usize> {
        self.shares.iter().position(|(weight, share)| *weight > 0 && wanted(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_selected_in_proportion_to_their_weights() {
        let split = Split::new(vec![(95, 'a'), (0, 'b'), (5, 'c')]).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let mut met = std::collections::BTreeMap::<char, usize>::new();
        for _ in 0..100_000 {
            *met.entry(*split.of(random.u64(..)).unwrap().1).or_default() += 1;
        }
        assert!((4_700..=5_300).contains(&met[&'c']) && met[&'a'] + met[&'c'] == 100_000, "{met:?}");
        assert_eq!((split.of(0), split.of(u64::MAX)), (Some((0, &'a')), Some((2, &'c'))));
    }

    #[test]
    fn invalid_weights_are_rejected() {
        assert!(Split::new(Vec::<(u32, ())>::new()).is_none());
        assert!(Split::new(vec![(0, ()), (0, ())]).is_none());
        assert!(Split::new(vec![(u32::MAX, ()), (1, ())]).is_none());
        assert_eq!(Split::new(vec![(u32::MAX, 'a')]).unwrap().of(u64::MAX), Some((0, &'a')));
        assert_eq!(Split::new(vec![(0, 'a'), (1, 'b')]).unwrap().position(|_| true), Some(1));
    }
}
