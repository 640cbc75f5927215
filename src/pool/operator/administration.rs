//! Whether a backend is to have traffic, and how much: what the file says, and what an operator says
//! instead while the process runs.
//!
//! The operator is heard until the file says something else about the backend than it did then. What an
//! operator says that the file says too is nothing to be remembered.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::units::Timestamp;

/// Whether a backend is to have requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// It takes requests if it is well.
    #[default]
    Enabled = 0,
    /// It takes no new requests; open ones finish. Its health is checked.
    Draining = 1,
    /// It takes no new requests; open ones finish. Its health is not checked, and once it is enabled a check
    /// must pass first.
    Disabled = 2,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        })
    }
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Takes traffic only when too few primaries can.
    pub backup: bool,
    /// Takes no new requests.
    pub drain: bool,
    /// Share of the traffic relative to the other backends; 0 takes none.
    pub weight: u32,
}

impl Default for Written {
    fn default() -> Self {
        Self { backup: false, drain: false, weight: 1 }
    }
}

impl Written {
    fn state(self) -> State {
        if self.drain { State::Draining } else { State::Enabled }
    }
}

/// What an operator says instead of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Whether it is to have requests, where the file says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Its weight, where the file says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// When it was last changed.
    pub since: Timestamp,
}

/// What an operator changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Whether it is to have requests.
    State(State),
    /// Its weight.
    Weight(u32),
    /// Nothing any more: the file is right.
    Nothing,
}

/// What is said about one backend. Requests read the two numbers; the lock is for who changes them.
#[derive(Debug)]
pub(in crate::pool) struct Administration {
    state: AtomicU8,
    weight: AtomicU32,
    said: Mutex<(Written, Option<Override>)>,
}

impl Administration {
    pub(in crate::pool) fn new(written: Written) -> Self {
        Self {
            state: AtomicU8::new(written.state() as u8),
            weight: AtomicU32::new(written.weight),
            said: Mutex::new((written, None)),
        }
    }

    pub(in crate::pool) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Enabled,
            1 => State::Draining,
            _ => State::Disabled,
        }
    }

    pub(in crate::pool) fn weight(&self) -> u32 {
        // In one order with the exchange of snapshots: see [`crate::pool::Pool::reweigh`].
        self.weight.load(Ordering::SeqCst)
    }

    pub(in crate::pool) fn overridden(&self) -> Option<Override> {
        self.said.lock().1
    }

    pub(in crate::pool) fn written(&self) -> Written {
        self.said.lock().0
    }

    /// From now on the file says this. What an operator said before ends where that is something else; it
    /// is returned then.
    pub(in crate::pool) fn follow(&self, written: Written) -> Option<Override> {
        let mut said = self.said.lock();
        if said.0 == written {
            return None;
        }
        let ended = said.1.take();
        said.0 = written;
        self.publish(written, None);
        ended
    }

    /// An operator says this.
    pub(in crate::pool) fn change(&self, change: Change, since: Timestamp) {
        let mut said = self.said.lock();
        let (written, before) = *said;
        let mut now = before.unwrap_or(Override { state: None, weight: None, since });
        match change {
            Change::State(state) => now.state = (state != written.state()).then_some(state),
            Change::Weight(weight) => now.weight = (weight != written.weight).then_some(weight),
            Change::Nothing => (now.state, now.weight) = (None, None),
        }
        now.since = since;
        said.1 = (now.state.is_some() || now.weight.is_some()).then_some(now);
        self.publish(written, said.1);
    }

    fn publish(&self, written: Written, told: Option<Override>) {
        let state = told.and_then(|told| told.state).unwrap_or(written.state());
        let weight = told.and_then(|told| told.weight).unwrap_or(written.weight);
        self.state.store(state as u8, Ordering::Relaxed);
        self.weight.store(weight, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: Written = Written { backup: false, drain: false, weight: 3 };

    fn at(second: u64) -> Timestamp {
        Timestamp(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second))
    }

    #[test]
    fn what_an_operator_says_holds_until_the_file_says_something_else() {
        let said = Administration::new(WRITTEN);
        assert_eq!((said.state(), said.weight(), said.overridden()), (State::Enabled, 3, None));
        said.change(Change::State(State::Draining), at(1));
        said.change(Change::Weight(9), at(2));
        let told = Override { state: Some(State::Draining), weight: Some(9), since: at(2) };
        assert_eq!((said.state(), said.weight(), said.overridden()), (State::Draining, 9, Some(told)));
        assert_eq!(said.follow(WRITTEN), None, "the file says what it said");
        assert_eq!(said.overridden(), Some(told));
        assert_eq!(said.follow(Written { weight: 4, ..WRITTEN }), Some(told));
        assert_eq!((said.state(), said.weight(), said.overridden()), (State::Enabled, 4, None));
    }

    #[test]
    fn what_the_file_says_too_is_nothing_to_remember() {
        let said = Administration::new(Written { drain: true, ..WRITTEN });
        said.change(Change::State(State::Draining), at(1));
        said.change(Change::Weight(3), at(1));
        assert_eq!(said.overridden(), None);
        said.change(Change::State(State::Enabled), at(2));
        assert_eq!(said.overridden(), Some(Override { state: Some(State::Enabled), weight: None, since: at(2) }));
        said.change(Change::Weight(0), at(3));
        said.change(Change::State(State::Draining), at(4));
        assert_eq!(said.overridden(), Some(Override { state: None, weight: Some(0), since: at(4) }));
        said.change(Change::Nothing, at(5));
        assert_eq!((said.state(), said.weight(), said.overridden()), (State::Draining, 3, None));
    }
}
