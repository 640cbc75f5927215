//! How many retries a pool can bear: a fifth of its requests, and three a second in any case.
//!
//! Requests and retries of the last ten seconds are counted in slots of one second, as Finagle and
//! Linkerd do. Counting the past instead of saving up a fixed number of tokens lets the reserve grow
//! and shrink with the traffic. When all backends fail they see 1.2 times the requests, not three
//! times. The floor lets a pool with few requests have any retry at all.
//!
//! A request costs one compare-and-exchange. Counts are exact but for requests that arrive in the
//! order of their clocks only roughly, which may put them into a neighbouring second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const SLOTS: u64 = 10;
/// Retries for each hundred requests.
const PERCENT: u64 = 20;
/// Retries a second that are always allowed.
const FLOOR: u64 = 3;

/// A count with the second that it belongs to: the upper half is the second, the lower the count.
#[derive(Debug, Default)]
struct Slot(AtomicU64);

impl Slot {
    fn add(&self, second: u64) {
        let add = |slot: u64| Some(if slot >> 32 == second { slot.saturating_add(1) } else { second << 32 | 1 });
        // The closure never says no.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok();
    }

    /// The count, if it is of the ten seconds that end with `second`.
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
    /// A budget that nothing was taken from. Times are kept relative to `epoch`.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self { epoch, requests: Default::default(), retries: Default::default() }
    }

    /// Counts a request; not its retries.
    pub fn deposit(&self, now: Instant) {
        self.count(&self.requests, self.second(now));
    }

    /// Takes a retry out, if there is one.
    pub fn withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        let sum = |slots: &[Slot]| slots.iter().map(|slot| slot.recent(second)).sum::<u64>();
        let allowed = (sum(&self.requests) * PERCENT / 100).max(FLOOR * SLOTS);
        let left = sum(&self.retries) < allowed;
        if left {
            self.count(&self.retries, second);
        }
        left
    }

    /// Seconds since the epoch; the first one is 1, so that empty slots belong to none.
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
    fn retries_are_a_fifth_of_the_requests() {
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
    fn a_pool_with_few_requests_has_three_a_second() {
        let now = Instant::now();
        let budget = Budget::new(now);
        assert_eq!(withdrawn(&budget, now, 100), 30, "ten seconds' worth at once");
        let minute: usize = (1..=60).map(|second| withdrawn(&budget, now + SECOND * second, 100)).sum();
        assert_eq!(minute, 180);
    }

    #[test]
    fn the_past_is_forgotten_after_ten_seconds() {
        let now = Instant::now();
        let budget = Budget::new(now);
        (0..1000).for_each(|_| budget.deposit(now));
        assert_eq!(withdrawn(&budget, now + SECOND * 9, 300), 200);
        assert_eq!(withdrawn(&budget, now + SECOND * 15, 300), 0, "the retries are newer than the requests");
        assert_eq!(withdrawn(&budget, now + SECOND * 30, 300), 30);
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        let now = Instant::now();
        let budget = Budget::new(now);
        (0..1000).for_each(|_| budget.deposit(now));
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| withdrawn(&budget, now, 500))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // Between the look and the count each other thread may slip in once.
        assert!((200..=203).contains(&taken), "{taken}");
    }
}
