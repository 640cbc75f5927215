//! The line of requests that wait for a place in a pool: short, and fair only while that helps.
//!
//! A line that is long for long is no buffer, it is a delay that everybody gets, and in the end it is full
//! of requests whose clients have given up. So it is bounded in length (what comes when it is full is
//! refused at once) and in time. While it is a short burst, the first come is the first served. Once it
//! has not been empty for a quarter of the time that requests may wait, there is more than the pool can
//! do, and the newest goes first: it still has somebody who waits for it, and those who would be late
//! anyway are the ones that are. Facebook calls it *adaptive LIFO* ("Fail at Scale", ACM Queue 2015).
//!
//! A state machine with the clock passed in; [`crate::pool::admission::gate`] makes requests wait in it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many may wait and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Requests that wait at once.
    pub length: usize,
    /// The longest wait.
    pub timeout: Duration,
}

/// The line is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One place in the line.
#[derive(Debug)]
struct Place<T> {
    ticket: u64,
    who: T,
}

/// The line.
#[derive(Debug)]
pub struct Line<T> {
    spec: Spec,
    /// The oldest first.
    places: VecDeque<Place<T>>,
    /// Since when it has not been empty.
    busy_since: Option<Instant>,
    tickets: u64,
}

impl<T> Line<T> {
    /// An empty line.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, places: VecDeque::new(), busy_since: None, tickets: 0 }
    }

    /// The longest wait.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.spec.timeout
    }

    /// From now on `spec` holds. Nobody who waits is sent away.
    pub fn follow(&mut self, spec: Spec) {
        self.spec = spec;
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Joins the line; the ticket is for [`Line::leave`].
    ///
    /// # Errors
    /// When the line is full.
    pub fn join(&mut self, who: T, now: Instant) -> Result<u64, Full> {
        if self.places.len() >= self.spec.length {
            return Err(Full);
        }
        self.tickets = self.tickets.wrapping_add(1);
        self.places.push_back(Place { ticket: self.tickets, who });
        self.busy_since.get_or_insert(now);
        Ok(self.tickets)
    }

    /// Takes the next out of the line.
    pub fn next(&mut self, now: Instant) -> Option<T> {
        let overloaded = self.is_overloaded(now);
        let place = if overloaded { self.places.pop_back() } else { self.places.pop_front() };
        self.settle();
        place.map(|place| place.who)
    }

    /// Leaves the line without having been served. Whether the ticket still stood in it.
    pub fn leave(&mut self, ticket: u64) -> bool {
        let found = self.places.iter().position(|place| place.ticket == ticket);
        let left = found.and_then(|index| self.places.remove(index)).is_some();
        self.settle();
        left
    }

    /// Whether the newest goes first.
    #[must_use]
    pub fn is_overloaded(&self, now: Instant) -> bool {
        self.busy_since.is_some_and(|since| now.saturating_duration_since(since) >= self.spec.timeout / 4)
    }

    fn settle(&mut self) {
        if self.places.is_empty() {
            self.busy_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec { length: 4, timeout: Duration::from_secs(1) };

    fn line(count: u32, now: Instant) -> Line<u32> {
        let mut line = Line::new(SPEC);
        (0..count).for_each(|who| assert!(line.join(who, now).is_ok()));
        line
    }

    #[test]
    fn a_burst_is_served_in_turn() {
        let now = Instant::now();
        let mut line = line(3, now);
        let served: Vec<_> = std::iter::from_fn(|| line.next(now + Duration::from_millis(249))).collect();
        assert_eq!(served, [0, 1, 2]);
    }

    #[test]
    fn under_overload_the_newest_goes_first() {
        let now = Instant::now();
        let mut line = line(3, now);
        let later = now + Duration::from_millis(250);
        assert_eq!(line.next(later), Some(2));
        assert_eq!(line.join(3, later), Ok(4));
        assert_eq!(
            [line.next(later), line.next(later), line.next(later), line.next(later)],
            [Some(3), Some(1), Some(0), None]
        );
        // It was empty, so the next burst is a burst.
        assert!(line.join(4, later).is_ok() && line.join(5, later).is_ok());
        assert_eq!(line.next(later), Some(4));
    }

    #[test]
    fn a_full_line_refuses_and_takes_again_when_somebody_left() {
        let now = Instant::now();
        let mut line = line(4, now);
        assert_eq!(line.join(4, now), Err(Full));
        assert!(line.leave(2));
        assert!(!line.leave(2), "only once");
        assert!(line.join(5, now).is_ok());
        assert_eq!((line.len(), line.next(now)), (4, Some(0)));
        assert!(!line.leave(1), "who was served has left already");
    }

    #[test]
    fn who_gives_up_leaves_an_empty_line_behind() {
        let now = Instant::now();
        let mut line = line(1, now);
        assert!(line.leave(1) && line.is_empty());
        assert!(!line.is_overloaded(now + Duration::from_secs(60)));
    }

    #[test]
    fn no_line_at_all_is_always_full() {
        let mut line = Line::new(Spec { length: 0, timeout: Duration::ZERO });
        assert_eq!(line.join((), Instant::now()), Err(Full));
    }
}
