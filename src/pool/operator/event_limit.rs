//! Limits the events about single backends of a pool: a pool of 10,000 backends that comes up is one line, not 10,000.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::event::Event;
use crate::base::units::PoolName;

/// Events about single backends in a window.
const SINGLE_MAX: u32 = 50;
/// The length of a window.
const WINDOW: Duration = Duration::from_secs(1);

/// Announces events about backends that come up, go down or leave. In each second the first 50 are announced one by one,
/// the others as one event with their numbers.
#[derive(Debug)]
pub struct EventLimit {
    pool: PoolName,
    state: Mutex<State>,
    /// Notified by the first event that is only counted.
    counting: Notify,
}

#[derive(Debug, Default)]
struct State {
    window_ends: Option<Instant>,
    single: u32,
    counts: Counts,
}

/// The events that were only counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    up: u32,
    down: u32,
    removed: u32,
}

impl State {
    /// Whether the event is announced by itself; otherwise it is counted.
    fn is_single(&mut self, event: &Event, now: Instant) -> bool {
        if self.window_ends.is_none_or(|ends| ends <= now) {
            (self.window_ends, self.single) = (Some(now + WINDOW), 0);
        }
        if self.single < SINGLE_MAX {
            self.single += 1;
            return true;
        }
        match event {
            Event::BackendUp { .. } => self.counts.up += 1,
            Event::BackendDown { .. } => self.counts.down += 1,
            Event::BackendRemoved { aborted: 0, .. } => self.counts.removed += 1,
            _ => return true,
        }
        false
    }
}

impl EventLimit {
    /// A limit for the events of `pool`.
    #[must_use]
    pub fn new(pool: PoolName) -> Self {
        Self { pool, state: Mutex::default(), counting: Notify::new() }
    }

    /// Announces an event, or counts it.
    pub fn announce(&self, event: Event, now: Instant) {
        // Announced without the lock.
        let is_single = self.state.lock().is_single(&event, now);
        if is_single {
            event.announce();
        } else {
            self.counting.notify_one();
        }
    }

    /// Announces what was counted, at the end of each window.
    pub(in crate::pool) async fn run(&self) {
        loop {
            self.counting.notified().await;
            let ends = self.state.lock().window_ends;
            if let Some(ends) = ends {
                tokio::time::sleep_until(ends.into()).await;
            }
            self.announce_counts();
        }
    }

    fn announce_counts(&self) {
        let counts = std::mem::take(&mut self.state.lock().counts);
        if counts != Counts::default() {
            let Counts { up, down, removed } = counts;
            Event::BackendsChanged { pool: self.pool.clone(), up, down, removed }.announce();
        }
    }
}

impl Drop for EventLimit {
    fn drop(&mut self) {
        self.announce_counts();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

    use super::*;

    #[test]
    fn events_above_the_limit_of_a_second_are_counted_by_kind() {
        let (mut state, start) = (State::default(), Instant::now());
        let backend = ([127, 0, 0, 1], 1).into();
        let up = Event::BackendUp { pool: "p".into(), backend };
        let down = Event::BackendDown { pool: "p".into(), backend, reason: String::new() };
        let removed = |aborted| Event::BackendRemoved { pool: "p".into(), backend, aborted };
        assert!((0..SINGLE_MAX).all(|_| state.is_single(&up, start)));
        assert!(!state.is_single(&up, start));
        assert!(!state.is_single(&down, start + WINDOW / 2));
        assert!(!state.is_single(&removed(0), start + WINDOW / 2));
        assert!(state.is_single(&removed(1), start + WINDOW / 2), "aborted requests are always reported");
        assert_eq!(state.counts, Counts { up: 1, down: 1, removed: 1 });
        assert!(state.is_single(&down, start + WINDOW), "the next second has its own limit");
    }
}
