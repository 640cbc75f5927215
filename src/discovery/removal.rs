//! Limits how many backends a source removes at once, and how many requests its list moves.
//!
//! A source that suddenly lists few backends is more often broken than right: a lost registry, an empty answer, a
//! partition. So a list without more than half of the current backends takes effect only once it has persisted. Pure:
//! the time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::source::Found;
use crate::base::backend_address::BackendAddress;

/// What a new list does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The list applies.
    Apply,
    /// Backends that the list lacks stay until this time, unless a later list has them again.
    Hold(Instant),
    /// Nothing of the list applies before this time, unless a later list moves fewer requests.
    HoldAll(Instant),
    /// Backends that the list lacks stay, however long it is empty.
    Keep,
}

/// The limit of one source.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemovalLimit {
    /// Since when lists lack more than half of the backends, or move too many requests.
    since: Option<Instant>,
}

/// What a list does to the current backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The number of current backends.
    pub current: usize,
    /// How many of them the list has.
    pub remaining: usize,
    /// The number of backends in the list.
    pub listed: usize,
    /// Whether it moves more requests than allowed.
    pub moves_too_many: bool,
}

/// The share of the requests to the backends of a source that another list moves, from 0 to 1: what the backends lose that
/// get less. Backups and drained backends get none. It is also the share of the keys that move with consistent hashing.
#[must_use]
pub fn moved_share(current: &[Found], listed: &[Found]) -> f64 {
    let weight = |found: &Found| if found.backup || found.drain { 0.0 } else { f64::from(found.weight) };
    let total = |list: &[Found]| list.iter().map(weight).sum::<f64>();
    let (before, after) = (total(current), total(listed));
    if before == 0.0 {
        // Nothing gets requests, so none moves.
        return 0.0;
    }
    let now: HashMap<BackendAddress, f64> = listed.iter().map(|found| (found.address, weight(found))).collect();
    let share = |weight: f64, total: f64| if total > 0.0 { weight / total } else { 0.0 };
    let lost = |found: &Found| {
        let now = now.get(&found.address).copied().unwrap_or_default();
        (share(weight(found), before) - share(now, after)).max(0.0)
    };
    current.iter().map(lost).sum()
}

impl RemovalLimit {
    /// Decides about a list. One that removes or moves too many takes effect after `hold`; an empty one only if
    /// `accepts_empty`.
    pub fn decide(
        &mut self,
        Effect { current, remaining, listed, moves_too_many }: Effect,
        (hold, accepts_empty): (Duration, bool),
        now: Instant,
    ) -> Verdict {
        let removed = current.saturating_sub(remaining);
        let removes_too_many = removed * 2 > current;
        if !removes_too_many && !moves_too_many {
            self.since = None;
            return Verdict::Apply;
        }
        if listed == 0 && !accepts_empty {
            self.since = None;
            return Verdict::Keep;
        }
        let until = *self.since.get_or_insert(now) + hold;
        if until > now {
            return if moves_too_many { Verdict::HoldAll(until) } else { Verdict::Hold(until) };
        }
        self.since = None;
        Verdict::Apply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(30);

    impl From<(usize, usize, usize)> for Effect {
        fn from((current, remaining, listed): (usize, usize, usize)) -> Self {
            Self { current, remaining, listed, moves_too_many: false }
        }
    }

    #[test]
    fn list_that_moves_too_many_requests_applies_as_a_whole_once_it_has_persisted() {
        let (mut limit, start) = (RemovalLimit::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let moves = |moves_too_many| Effect { current: 4, remaining: 3, listed: 9, moves_too_many };
        assert_eq!(limit.decide(moves(true), (HOLD, false), at(0)), Verdict::HoldAll(at(30)));
        assert_eq!(limit.decide(moves(true), (HOLD, false), at(29)), Verdict::HoldAll(at(30)));
        assert_eq!(limit.decide(moves(true), (HOLD, false), at(30)), Verdict::Apply);
        assert_eq!(limit.decide(moves(true), (HOLD, false), at(31)), Verdict::HoldAll(at(61)));
        assert_eq!(limit.decide(moves(false), (HOLD, false), at(32)), Verdict::Apply);
    }

    #[test]
    fn moved_share_is_what_backends_lose() {
        let found =
            |port: u16, weight: u32| Found { weight, ..Found::at(BackendAddress::Inet(([127, 0, 0, 1], port).into())) };
        let share = |before: &[(u16, u32)], after: &[(u16, u32)]| {
            let list = |of: &[(u16, u32)]| of.iter().map(|(port, weight)| found(*port, *weight)).collect::<Vec<_>>();
            (moved_share(&list(before), &list(after)) * 1000.0).round() / 1000.0
        };
        assert_eq!(share(&[(1, 1), (2, 1)], &[(1, 1), (2, 1)]), 0.0);
        assert_eq!(share(&[(1, 1), (2, 1)], &[(1, 2), (2, 2)]), 0.0, "equal shares");
        assert_eq!(share(&[(1, 1), (2, 1)], &[(1, 1)]), 0.5);
        assert_eq!(share(&[(1, 1), (2, 1), (3, 1)], &[(1, 1), (2, 1), (3, 1), (4, 1)]), 0.25);
        assert_eq!(share(&[(1, 1), (2, 1)], &[(3, 1), (4, 1)]), 1.0);
        assert_eq!(share(&[(1, 3), (2, 1)], &[(1, 1), (2, 3)]), 0.5);
        assert_eq!(share(&[(1, 1)], &[]), 1.0);
        assert_eq!(share(&[], &[(1, 1)]), 0.0, "the first list moves nothing");
        let drained = Found { drain: true, ..found(1, 1) };
        assert_eq!(moved_share(&[found(1, 1), found(2, 1)], &[drained, found(2, 1)]), 0.5);
    }

    #[test]
    fn list_without_more_than_half_applies_once_it_has_persisted() {
        let (mut limit, start) = (RemovalLimit::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limit.decide((4, 2, 2).into(), (HOLD, false), at(0)), Verdict::Apply, "half of them");
        assert_eq!(limit.decide((4, 1, 1).into(), (HOLD, false), at(0)), Verdict::Hold(at(30)));
        assert_eq!(
            limit.decide((4, 1, 9).into(), (HOLD, false), at(29)),
            Verdict::Hold(at(30)),
            "additions do not matter"
        );
        assert_eq!(limit.decide((4, 1, 1).into(), (HOLD, false), at(30)), Verdict::Apply);
        assert_eq!(limit.decide((4, 0, 3).into(), (HOLD, false), at(40)), Verdict::Hold(at(70)));
        assert_eq!(limit.decide((4, 3, 3).into(), (HOLD, false), at(50)), Verdict::Apply, "the backends are back");
        assert_eq!(
            limit.decide((4, 0, 3).into(), (HOLD, false), at(60)),
            Verdict::Hold(at(90)),
            "the period begins again"
        );
    }

    #[test]
    fn empty_list_applies_only_if_it_is_accepted_and_persists() {
        let (mut limit, start) = (RemovalLimit::default(), Instant::now());
        assert_eq!(limit.decide((4, 0, 0).into(), (HOLD, false), start), Verdict::Keep);
        assert_eq!(limit.decide((4, 0, 0).into(), (HOLD, false), start + HOLD * 9), Verdict::Keep);
        assert_eq!(limit.decide((4, 0, 0).into(), (HOLD, true), start), Verdict::Hold(start + HOLD));
        assert_eq!(limit.decide((4, 0, 0).into(), (HOLD, true), start + HOLD), Verdict::Apply);
        assert_eq!(limit.decide((0, 0, 0).into(), (HOLD, false), start), Verdict::Apply);
        assert_eq!(limit.decide((1, 0, 1).into(), (Duration::ZERO, false), start), Verdict::Apply, "without a limit");
    }
}
