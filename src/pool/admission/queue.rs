//! The queue of requests that wait for a slot in a pool: bounded, and first-in first-out only during bursts.
//!
//! A queue that stays long is not a buffer but a delay for every request, and finally it is full of requests
//! whose clients have given up. So it is bounded in length (a request that finds it full is rejected
//! immediately) and in time. During a short burst it is first-in first-out. Once it has not been empty for a
//! quarter of the queue timeout, the pool is overloaded, and the newest request goes first: its client is still
//! waiting, and only requests that would be late in any case are late. Facebook calls this *adaptive LIFO*
//! ("Fail at Scale", ACM Queue 2015).
//!
//! A state machine; the time is an argument. [`crate::pool::admission::gate`] makes requests wait in it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The limits of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The largest number of queued requests.
    pub length: usize,
    /// The longest wait.
    pub timeout: Duration,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One queued request.
#[derive(Debug)]
struct Queued<T> {
    ticket: u64,
    who: T,
}

/// The queue.
#[derive(Debug)]
pub struct Queue<T> {
    spec: Spec,
    /// The oldest first.
    requests: VecDeque<Queued<T>>,
    /// Since when it has not been empty.
    busy_since: Option<Instant>,
    tickets: u64,
}

impl<T> Queue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, requests: VecDeque::new(), busy_since: None, tickets: 0 }
    }

    /// The longest wait.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.spec.timeout
    }

    /// Applies a new `spec`. Queued requests stay.
    pub fn reconfigure(&mut self, spec: Spec) {
        self.spec = spec;
    }

    /// The number of queued requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether the queue is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Adds a request; the ticket is for [`Queue::leave`].
    ///
    /// # Errors
    /// If the queue is full.
    pub fn join(&mut self, who: T, now: Instant) -> Result<u64, Full> {
        if self.requests.len() >= self.spec.length {
            return Err(Full);
        }
        self.tickets = self.tickets.wrapping_add(1);
        self.requests.push_back(Queued { ticket: self.tickets, who });
        self.busy_since.get_or_insert(now);
        Ok(self.tickets)
    }

    /// Puts a request back that was called but could not be served, to the place of its ticket. It is not rejected
    /// even if the queue has become full meanwhile.
    pub fn rejoin(&mut self, who: T, ticket: u64, now: Instant) {
        let place = self.requests.partition_point(|request| request.ticket < ticket);
        self.requests.insert(place, Queued { ticket, who });
        self.busy_since.get_or_insert(now);
    }

    /// Removes the next request.
    pub fn next(&mut self, now: Instant) -> Option<T> {
        let overloaded = self.is_overloaded(now);
        let request = if overloaded { self.requests.pop_back() } else { self.requests.pop_front() };
        self.settle();
        request.map(|request| request.who)
    }

    /// Removes a request that was not served. Returns whether it was still queued.
    pub fn leave(&mut self, ticket: u64) -> bool {
        let found = self.requests.iter().position(|request| request.ticket == ticket);
        let left = found.and_then(|index| self.requests.remove(index)).is_some();
        self.settle();
        left
    }

    /// Whether the newest request goes first.
    #[must_use]
    pub fn is_overloaded(&self, now: Instant) -> bool {
        self.busy_since.is_some_and(|since| now.saturating_duration_since(since) >= self.spec.timeout / 4)
    }

    fn settle(&mut self) {
        if self.requests.is_empty() {
            self.busy_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec { length: 4, timeout: Duration::from_secs(1) };

    fn queue(count: u32, now: Instant) -> Queue<u32> {
        let mut queue = Queue::new(SPEC);
        (0..count).for_each(|who| assert!(queue.join(who, now).is_ok()));
        queue
    }

    #[test]
    fn burst_is_served_first_in_first_out() {
        let now = Instant::now();
        let mut queue = queue(3, now);
        let served: Vec<_> = std::iter::from_fn(|| queue.next(now + Duration::from_millis(249))).collect();
        assert_eq!(served, [0, 1, 2]);
    }

    #[test]
    fn overloaded_queue_serves_the_newest_first() {
        let now = Instant::now();
        let mut queue = queue(3, now);
        let later = now + Duration::from_millis(250);
        assert_eq!(queue.next(later), Some(2));
        assert_eq!(queue.join(3, later), Ok(4));
        assert_eq!(
            [queue.next(later), queue.next(later), queue.next(later), queue.next(later)],
            [Some(3), Some(1), Some(0), None]
        );
        // The queue was empty, so the next burst is first-in first-out again.
        assert!(queue.join(4, later).is_ok() && queue.join(5, later).is_ok());
        assert_eq!(queue.next(later), Some(4));
    }

    #[test]
    fn full_queue_rejects_and_accepts_again_after_a_request_leaves() {
        let now = Instant::now();
        let mut queue = queue(4, now);
        assert_eq!(queue.join(4, now), Err(Full));
        assert!(queue.leave(2));
        assert!(!queue.leave(2), "a ticket is valid once");
        assert!(queue.join(5, now).is_ok());
        assert_eq!((queue.len(), queue.next(now)), (4, Some(0)));
        assert!(!queue.leave(1), "a served request has left already");
    }

    #[test]
    fn called_request_gets_its_place_back_even_in_a_full_queue() {
        let now = Instant::now();
        let mut queue = queue(4, now);
        assert_eq!(queue.next(now), Some(0));
        assert!(queue.join(4, now).is_ok());
        queue.rejoin(0, 1, now);
        assert_eq!((queue.len(), queue.join(5, now)), (5, Err(Full)));
        assert_eq!((queue.next(now), queue.next(now)), (Some(0), Some(1)));
        assert!(queue.leave(3), "tickets stay valid");
    }

    #[test]
    fn queue_is_empty_after_its_last_request_gives_up() {
        let now = Instant::now();
        let mut queue = queue(1, now);
        assert!(queue.leave(1) && queue.is_empty());
        assert!(!queue.is_overloaded(now + Duration::from_secs(60)));
    }

    #[test]
    fn queue_of_length_zero_is_always_full() {
        let mut queue = Queue::new(Spec { length: 0, timeout: Duration::ZERO });
        assert_eq!(queue.join((), Instant::now()), Err(Full));
    }
}
