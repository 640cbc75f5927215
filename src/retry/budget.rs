//! The retry budget of a pool: a fifth of its requests, and at least three per second.
//!
//! Requests and retries of the last ten seconds are counted in slots of one second, as in Finagle and Linkerd.
//! Counting the past, instead of saving tokens, lets the budget follow the traffic. When all backends fail they
//! get 1.2 times the requests, not three times. The minimum allows retries in a pool with few requests.
//!
//! A request costs one compare-and-exchange. Counts are exact except for concurrent requests with slightly
//! different clocks, which may count in a neighbouring second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const SLOTS: u64 = 10;
/// Retries per hundred requests.
const PERCENT: u64 = 20;
/// Retries per second that are always allowed.
const FLOOR: u64 = 3;

/// A count and its second: the upper half is the second, the lower half the count.
#[derive(Debug, Default)]
struct Slot(AtomicU64);

impl Slot {
    fn add(&self, second: u64) {
        let add = |slot: u64| Some(if slot >> 32 == second { slot.saturating_add(1) } else { second << 32 | 1 });
        // The closure never returns `None`.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok();
    }

    /// The count, if it belongs to the ten seconds that end with `second`.
    fn recent(&self, second: u64) -> u64 {
        let slot = self.0.load(Ordering::Relaxed);
        if second.saturating_sub(slot >> 32) < SLOTS { slot & u64::from(u32::MAX) } else { 0 }
    }
}

/// The retries of one pool, shared by all routes to it.
#[derive(Debug)]
pub struct Budget {
    epoch: Instant,
    requests: [Slot; SLOTS as usize],
    retries: [Slot; SLOTS as usize],
}

impl Budget {
    /// An unused budget. Times are relative to `epoch`.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self { epoch, requests: Default::default(), retries: Default::default() }
    }

    /// Counts a request; not its retries.
    pub fn deposit(&self, now: Instant) {
        self.count(&self.requests, self.second(now));
    }

    /// Takes a retry, if one is left.
    pub fn withdraw(&self, now: Instant) -> bool {
        let left = self.left(now) > 0;
        if left {
            self.count(&self.retries, self.second(now));
        }
        left
    }

    /// The number of retries that are left.
    #[must_use]
    pub fn left(&self, now: Instant) -> u64 {
        let second = self.second(now);
        let sum = |slots: &[Slot]| slots.iter().map(|slot| slot.recent(second)).sum::<u64>();
        let allowed = (sum(&self.requests) * PERCENT / 100).max(FLOOR * SLOTS);
        allowed.saturating_sub(sum(&self.retries))
    }

    /// Seconds since the epoch, starting at 1, so that empty slots belong to no second.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs() + 1
    }

    fn count(&self, slots: &[Slot; SLOTS as usize], second: u64) {
        // The remainder of ten is always an index.
        if let Some(slot) = usize::try_from(second % SLOTS).ok().and_then(|index| slots.get(index)) {
            slot.add(second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn withdrawn(budget: &Budget, now: Instant, wanted: usize) -> usize {
        (0..wanted).filter(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn budget_allows_a_fifth_of_the_requests() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let mut retries = 0;
        for millisecond in 0..60_000 {
            let now = now + Duration::from_millis(millisecond);
            budget.deposit(now);
            retries += withdrawn(&budget, now, 2);
        }
        assert!((11_900..=12_100).contains(&retries), "{retries} of 60,000 requests");
    }

    #[test]
    fn budget_allows_three_retries_per_second_with_few_requests() {
        let now = Instant::now();
        let budget = Budget::new(now);
        assert_eq!(withdrawn(&budget, now, 100), 30, "the budget of ten seconds");
        let minute: usize = (1..=60).map(|second| withdrawn(&budget, now + SECOND * second, 100)).sum();
        assert_eq!(minute, 180);
    }

    #[test]
    fn counts_expire_after_ten_seconds() {
        let now = Instant::now();
        let budget = Budget::new(now);
        (0..1000).for_each(|_| budget.deposit(now));
        assert_eq!(withdrawn(&budget, now + SECOND * 9, 300), 200);
        assert_eq!(withdrawn(&budget, now + SECOND * 15, 300), 0, "the retries are newer than the requests");
        assert_eq!(withdrawn(&budget, now + SECOND * 30, 300), 30);
    }

    #[test]
    fn concurrent_threads_do_not_exceed_the_budget() {
        let now = Instant::now();
        let budget = Budget::new(now);
        (0..1000).for_each(|_| budget.deposit(now));
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| withdrawn(&budget, now, 500))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // Between check and count each other thread may take one retry.
        assert!((200..=203).contains(&taken), "{taken}");
    }
}
