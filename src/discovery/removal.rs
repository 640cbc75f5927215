//! Limits how many backends a source removes at once.
//!
//! A source that suddenly lists few backends is more often broken than right: a lost registry, an empty answer, a
//! partition. So a list without more than half of the current backends takes effect only once it has persisted. Pure:
//! the time is an argument.

use std::time::{Duration, Instant};

/// What a new list does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The list applies.
    Apply,
    /// Backends that the list lacks stay until this time, unless a later list has them again.
    Hold(Instant),
    /// Backends that the list lacks stay, however long it is empty.
    Keep,
}

/// The limit of one source.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemovalLimit {
    /// Since when lists lack more than half of the backends.
    since: Option<Instant>,
}

impl RemovalLimit {
    /// Decides about a list with `remaining` of the `current` backends and `listed` backends in all. A list that removes
    /// too many takes effect after `hold`; an empty one only if `accepts_empty`.
    pub fn decide(
        &mut self,
        (current, remaining, listed): (usize, usize, usize),
        (hold, accepts_empty): (Duration, bool),
        now: Instant,
    ) -> Verdict {
        let removed = current.saturating_sub(remaining);
        if removed * 2 <= current {
            self.since = None;
            return Verdict::Apply;
        }
        if listed == 0 && !accepts_empty {
            self.since = None;
            return Verdict::Keep;
        }
        let until = *self.since.get_or_insert(now) + hold;
        if until > now {
            return Verdict::Hold(until);
        }
        self.since = None;
        Verdict::Apply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(30);

    #[test]
    fn list_without_more_than_half_applies_once_it_has_persisted() {
        let (mut limit, start) = (RemovalLimit::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limit.decide((4, 2, 2), (HOLD, false), at(0)), Verdict::Apply, "half of them");
        assert_eq!(limit.decide((4, 1, 1), (HOLD, false), at(0)), Verdict::Hold(at(30)));
        assert_eq!(limit.decide((4, 1, 9), (HOLD, false), at(29)), Verdict::Hold(at(30)), "additions do not matter");
        assert_eq!(limit.decide((4, 1, 1), (HOLD, false), at(30)), Verdict::Apply);
        assert_eq!(limit.decide((4, 0, 3), (HOLD, false), at(40)), Verdict::Hold(at(70)));
        assert_eq!(limit.decide((4, 3, 3), (HOLD, false), at(50)), Verdict::Apply, "the backends are back");
        assert_eq!(limit.decide((4, 0, 3), (HOLD, false), at(60)), Verdict::Hold(at(90)), "the period begins again");
    }

    #[test]
    fn empty_list_applies_only_if_it_is_accepted_and_persists() {
        let (mut limit, start) = (RemovalLimit::default(), Instant::now());
        assert_eq!(limit.decide((4, 0, 0), (HOLD, false), start), Verdict::Keep);
        assert_eq!(limit.decide((4, 0, 0), (HOLD, false), start + HOLD * 9), Verdict::Keep);
        assert_eq!(limit.decide((4, 0, 0), (HOLD, true), start), Verdict::Hold(start + HOLD));
        assert_eq!(limit.decide((4, 0, 0), (HOLD, true), start + HOLD), Verdict::Apply);
        assert_eq!(limit.decide((0, 0, 0), (HOLD, false), start), Verdict::Apply);
        assert_eq!(limit.decide((1, 0, 1), (Duration::ZERO, false), start), Verdict::Apply, "without a limit");
    }
}
